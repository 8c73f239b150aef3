"""Networks for norms that contain their activation, and a layer without normalisation."""

from __future__ import annotations

from typing import ClassVar

from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from mmpretrain.models.backbones.resnet import BasicBlock
from timm.layers import EvoNorm2dS0a, FilterResponseNormTlu2d
from torch import Tensor, nn

from nc_plugins.models.resnet import ResNetAct_CIFAR

for norm in (EvoNorm2dS0a, FilterResponseNormTlu2d):
    MODELS.register_module(norm.__name__, module=norm, force=True)


@MODELS.register_module(force=True)
class ChannelAffine(nn.GroupNorm):
    """Gain and bias per channel in the place of a norm. It normalises nothing."""

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__(1, num_features, eps)

    def forward(self, input: Tensor) -> Tensor:
        return input * self.weight[:, None, None] + self.bias[:, None, None]


class NormActBlock(BasicBlock):
    """mmpretrain's BasicBlock with an activation in its first norm and none in the others.

    The activation after the sum stays, as in timm's networks with these norms.
    """

    def __init__(self, *args, norm_cfg: dict, downsample=None, **kwargs) -> None:
        super().__init__(*args, norm_cfg=norm_cfg, downsample=downsample, **kwargs)
        linear = dict(norm_cfg, apply_act=False)
        setattr(self, self.norm2_name, build_norm_layer(linear, self.out_channels)[1])
        if downsample is not None:
            downsample[-1] = build_norm_layer(linear, self.out_channels)[1]

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.norm1(self.conv1(x))
        return self.relu(self.norm2(self.conv2(out)) + identity)


@MODELS.register_module(force=True)
class ResNetNormAct_CIFAR(ResNetAct_CIFAR):
    """ResNetAct_CIFAR for norms that contain their activation and take ``apply_act``."""

    arch_settings: ClassVar = {18: (NormActBlock, (2, 2, 2, 2))}

    def _make_stem_layer(self, in_channels: int, base_channels: int) -> None:
        super()._make_stem_layer(in_channels, base_channels)
        self.relu = nn.Identity()
