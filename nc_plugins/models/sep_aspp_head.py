"""The head of DeepLabV3+ with ``conv_cfg`` in its separable convolutions.

mmseg passes ``norm_cfg`` to these convolutions, but not ``conv_cfg``.
"""

from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule, build_conv_layer
from mmseg.models import DepthwiseSeparableASPPHead
from mmseg.registry import MODELS

from nc_plugins.layers import NCAffine


# force=True: importing this file again under another name is not an error.
@MODELS.register_module(force=True)
class SepASPPHead(DepthwiseSeparableASPPHead):
    """mmseg's ``DepthwiseSeparableASPPHead`` with ``conv_cfg`` in its separable convolutions.

    ``conv_cfg`` sets the pointwise convolutions. Without it the head equals its parent. The keys of
    the state dict do not depend on it.

    Args:
        depthwise_conv_cfg: Type of the depthwise convolutions. Default: ``nn.Conv2d``, because NC
            over the 9 values of a single channel removes the activation of the channel. NCAffine
            in the norm slot behind ``nn.Conv2d`` is only a gain and a bias.
        kwargs: Arguments of ``DepthwiseSeparableASPPHead``.
    """

    def __init__(self, *args, depthwise_conv_cfg=None, **kwargs):
        super().__init__(*args, **kwargs)
        for module in self.modules():
            if isinstance(module, DepthwiseSeparableConvModule):
                _set_conv(module.pointwise_conv, self.conv_cfg)
                _set_conv(module.depthwise_conv, depthwise_conv_cfg)
                norm = module.depthwise_conv.norm
                if depthwise_conv_cfg is None and isinstance(norm, NCAffine):
                    norm.allow_plain = True


def _set_conv(block: ConvModule, conv_cfg: dict | None) -> None:
    """Replace the convolution of ``block`` by one of another type."""
    if conv_cfg is None:
        return
    plain = block.conv
    block.conv = build_conv_layer(
        conv_cfg,
        plain.in_channels,
        plain.out_channels,
        plain.kernel_size,
        stride=plain.stride,
        padding=plain.padding,
        dilation=plain.dilation,
        groups=plain.groups,
        bias=plain.bias is not None,
    )
    block.init_weights()
