"""DeepLabV3+'s head with conv_cfg in its separable convolutions.

mmseg hands ``norm_cfg`` to them and leaves ``conv_cfg`` out, so a convolution that brings its own
normalisation never gets there.
"""

from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule, build_conv_layer
from mmseg.models import DepthwiseSeparableASPPHead
from mmseg.registry import MODELS

from nc_plugins.layers import NCAffine


# force=True: a second import of this file under another name must not be an error.
@MODELS.register_module(force=True)
class SepASPPHead(DepthwiseSeparableASPPHead):
    """mmseg's DepthwiseSeparableASPPHead whose separable convolutions take ``conv_cfg`` too.

    With ``conv_cfg=None`` it is its parent; the names in the state dict are its parent's always.

    Args:
        depthwise_conv_cfg: of the depthwise convolutions, None for nn.Conv2d. They have a slot of
            their own because a normalized convolution over the 9 values of a single channel throws
            away how active the channel is; the pointwise convolution behind each sees them all.
            After a plain one, NCAffine in the norm slot is a gain and a bias.
        kwargs: of the parent.
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
