"""mmdet's RPNHead with a convolution slot and a norm slot.

The 3x3 convolution of mmdet's RPN is a bare nn.Conv2d, which no config can replace. This one goes
through mmcv's builders; the two 1x1 predictors stay plain, as all predictors do.
"""

from __future__ import annotations

from mmcv.cnn import ConvModule, build_conv_layer
from mmdet.models import RPNHead
from mmdet.registry import MODELS
from torch import nn


# force=True: a second import of this file under another name must not be an error.
@MODELS.register_module(force=True)
class RPNHeadWithSlots(RPNHead):
    """``mmdet.RPNHead(in_channels, num_convs=1, ...)`` with ``conv_cfg`` and ``norm_cfg``.

    Args:
        conv_cfg: for mmcv's ``build_conv_layer``; None is nn.Conv2d.
        norm_cfg: norm after each convolution, which then has no bias; None is no norm. With both
            None and ``num_convs=1`` the modules and the state dict are those of mmdet's RPNHead.

    Raises:
        KeyError: a type that is in no registry.
    """

    def __init__(
        self, *args, conv_cfg: dict | None = None, norm_cfg: dict | None = None, **kwargs
    ) -> None:
        # Read by _init_layers, which the parent's __init__ calls.
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
                    # RPNHead.forward_single applies the last ReLU itself.
                    act_cfg=None if last else dict(type='ReLU'),
                    inplace=False,
                )
            )
        self.rpn_conv = nn.Sequential(*convs)
