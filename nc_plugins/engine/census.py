"""Says at the start of training what the model is made of, and refuses half a swap."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from ..layers import HalfSwapError, NCAffine, layer_census


@HOOKS.register_module(force=True)
class NCCensusHook(Hook):
    """Logs the census of layers before the first iteration.

    The layers themselves catch an NC convolution or norm slot without its other half, in the first
    forward; what the census alone can tell is refused here, earlier. The counts are also left in
    the message hub, under ``nc_census``.

    Raises:
        HalfSwapError: NC in the norm slots but not one NC convolution.
    """

    def before_train(self, runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        census = layer_census(model)
        runner.message_hub.update_info('nc_census', census)
        counts = ', '.join(f'{count} {kind}' for kind, count in census.items() if count)
        runner.logger.info(f'layer census: {counts or "no convolution and no norm"}')

        convolutions = census['NC'] + census['NCWS']
        strict = [m for m in model.modules() if isinstance(m, NCAffine) and not m.allow_plain]
        if strict and not convolutions:
            raise HalfSwapError(
                f'{len(strict)} NC norm slots but no NC convolution, so nothing is '
                "normalised: set conv_cfg=dict(type='NC') beside norm_cfg=dict(type='NC')"
            )
        if convolutions and census['BN']:
            # Not an error: it may stand behind a plain convolution. The layers tell, in the first
            # forward, but torch.compile hides that from them.
            runner.logger.warning(
                f'{census["BN"]} BatchNorm layers beside NC convolutions: these parts depend on '
                "the batch; norm_cfg=dict(_delete_=True, type='NC') replaces them"
            )
        others = [kind for kind in ('GN', 'LN', 'IN') if census[kind]]
        if convolutions and others:
            runner.logger.info(
                f'NC convolutions and {", ".join(others)} norms in one model: where one follows '
                'the other, activations are normalised twice, as the config says'
            )
