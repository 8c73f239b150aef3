"""mmpretrain's ResNet with the activation in the config.

The blocks of mmpretrain's ResNet take ``act_cfg``, the backbone gives no way to reach them and
its stem builds a bare ReLU. These two add the one argument and change nothing else: with the
default they build the very modules of their parents, under the same state dict.
"""

from mmcv.cnn import build_activation_layer
from mmpretrain.models import ResNet, ResNet_CIFAR
from mmpretrain.registry import MODELS


class _Activated:
    """Hands ``act_cfg`` to the stem and to every block of an mmpretrain ResNet."""

    def __init__(self, *args, act_cfg=None, **kwargs):
        self.act_cfg = act_cfg or dict(type='ReLU', inplace=True)
        super().__init__(*args, **kwargs)
        if self.deep_stem:
            raise ValueError(
                f'{type(self).__name__} got deep_stem=True, whose three ReLUs are fixed upstream; '
                'wanted deep_stem=False'
            )

    def _make_stem_layer(self, in_channels, stem_channels):
        super()._make_stem_layer(in_channels, stem_channels)
        self.relu = build_activation_layer(self.act_cfg)

    def make_res_layer(self, **kwargs):
        return super().make_res_layer(act_cfg=self.act_cfg, **kwargs)


# force=True: a second import of this file under another name must not be an error.
@MODELS.register_module(force=True)
class ResNetAct(_Activated, ResNet):
    """``mmpretrain.ResNet(depth, ...)`` with ``act_cfg`` (default: in-place ReLU)."""


@MODELS.register_module(force=True)
class ResNetAct_CIFAR(_Activated, ResNet_CIFAR):
    """``mmpretrain.ResNet_CIFAR(depth, ...)``: 3x3 stem, no max pool; with ``act_cfg``."""
