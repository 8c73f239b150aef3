"""mmpretrain's ResNet with the argument ``act_cfg``.

The residual blocks of mmpretrain accept ``act_cfg``, but its ResNet does not pass it on and uses
``nn.ReLU`` in the stem. With the default these classes equal their parents.
"""

from mmcv.cnn import build_activation_layer
from mmpretrain.models import ResNet, ResNet_CIFAR
from mmpretrain.registry import MODELS


class _ActivationMixin:
    """Pass ``act_cfg`` to the stem and to every block of an mmpretrain ResNet."""

    def __init__(self, *args, act_cfg=None, **kwargs):
        self.act_cfg = act_cfg or dict(type='ReLU', inplace=True)
        super().__init__(*args, **kwargs)
        if self.deep_stem:
            raise ValueError(
                f'{type(self).__name__} does not support deep_stem=True: mmpretrain always uses '
                'ReLU in the deep stem'
            )

    def _make_stem_layer(self, in_channels, stem_channels):
        super()._make_stem_layer(in_channels, stem_channels)
        self.relu = build_activation_layer(self.act_cfg)

    def make_res_layer(self, **kwargs):
        return super().make_res_layer(act_cfg=self.act_cfg, **kwargs)


# force=True: importing this file again under another name is not an error.
@MODELS.register_module(force=True)
class ResNetAct(_ActivationMixin, ResNet):
    """``mmpretrain.ResNet(depth, ...)`` with ``act_cfg`` (default: in-place ReLU)."""


@MODELS.register_module(force=True)
class ResNetAct_CIFAR(_ActivationMixin, ResNet_CIFAR):
    """``mmpretrain.ResNet_CIFAR(depth, ...)`` with ``act_cfg`` (default: in-place ReLU).

    It has a 3x3 stem and no max pooling.
    """
