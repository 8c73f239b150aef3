"""mmdet's RPNHead with the arguments ``conv_cfg`` and ``norm_cfg``.

mmdet always uses ``nn.Conv2d`` for the 3x3 convolution of the RPN.
"""

from __future__ import annotations

from mmcv.cnn import ConvModule, build_conv_layer
from mmdet.models import RPNHead
from mmdet.registry import MODELS
from torch import nn


# force=True: importing this file again under another name is not an error.
@MODELS.register_module(force=True)
class RPNHeadWithSlots(RPNHead):
    """``mmdet.RPNHead(in_channels, num_convs=1, ...)`` with ``conv_cfg`` and ``norm_cfg``.

    The two 1x1 predictors stay ``nn.Conv2d``. With ``num_convs=1`` and neither argument, modules
    and state dict equal those of ``mmdet.RPNHead``.

    Args:
        conv_cfg: Type of the 3x3 convolutions. Default: ``nn.Conv2d``.
        norm_cfg: Type of the norm behind each 3x3 convolution, which then has no bias. Default: no
            norm.

    Raises:
        KeyError: If a type is not registered.
    """

    def __init__(
        self, *args, conv_cfg: dict | None = None, norm_cfg: dict | None = None, **kwargs
    ) -> None:
        # Set first, because RPNHead.__init__ calls _init_layers.
        self.conv_cfg, self.norm_cfg = conv_cfg, norm_cfg
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        if self.num_convs == 1 and self.norm_cfg is None:
            self.rpn_conv = build_conv_layer(
                self.conv_cfg, self.in_channels, self.feat_channels, 3, padding=1
            )
            return
        convs = []
        for i in range(self.num_convs):
            last = i == self.num_convs - 1
            convs.append(
                ConvModule(
                    self.feat_channels if i else self.in_channels,
                    self.feat_channels,
                    3,
                    padding=1,
                    conv_cfg=self.conv_cfg,
                    norm_cfg=self.norm_cfg,
                    # RPNHead.forward_single applies the last ReLU.
                    act_cfg=None if last else dict(type='ReLU'),
                    inplace=False,
                )
            )
        self.rpn_conv = nn.Sequential(*convs)
