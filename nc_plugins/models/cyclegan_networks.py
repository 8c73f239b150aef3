"""The networks of CycleGAN (arXiv 1703.10593, Sec. 7.2, and the authors' release)."""

from mmcv.cnn import ConvModule, build_norm_layer, build_upsample_layer
from mmengine.registry import MODELS
from torch import Tensor, nn


# force=True: importing this file again under another name is not an error.
@MODELS.register_module(force=True)
class ResNetGenerator(nn.Module):
    """Translate images of one domain to another.

    The layers are a 7x7 convolution, two 3x3 convolutions of stride 2, residual blocks, two
    upsamplings, and a 7x7 convolution to RGB with tanh. Convolutions of stride 1 pad by reflection.
    Each convolution except the last has a norm and a ReLU behind it. The last convolution ignores
    ``conv_cfg``: NC would remove the brightness from its input.

    Shapes: [N, 3, H, W] -> [N, 3, H, W], values in [-1, 1].

    Args:
        num_blocks: Number of residual blocks. 9 for images of 256 pixels and more, 6 for 128.
        base_channels: Channels of the first convolution. The blocks have four times as many.
        conv_cfg: Type of the convolutions, as in mmcv's ``ConvModule``.
        norm_cfg: Type of the norms. If the norm has no bias, the convolutions have one.
        upsample_cfg: ``'deconv'`` or ``'NCDeconv'`` for a transposed 3x3 convolution of stride 2,
            ``'nearest'`` or ``'bilinear'`` for a resize followed by a 3x3 convolution.

    Raises:
        ValueError: If the height or the width of the input is not a multiple of 4.
    """

    def __init__(
        self,
        num_blocks: int = 9,
        base_channels: int = 64,
        conv_cfg: dict | None = None,
        norm_cfg: dict = dict(type='IN', affine=False),  # noqa: B006 (mmcv copies it)
        upsample_cfg: dict = dict(type='deconv'),  # noqa: B006
    ) -> None:
        super().__init__()
        width = base_channels
        slots = _slots(conv_cfg, norm_cfg, base_channels)
        reflect = dict(padding_mode='reflect', **slots)
        self.layers = nn.Sequential(
            ConvModule(3, width, 7, padding=3, **reflect),
            ConvModule(width, 2 * width, 3, stride=2, padding=1, **slots),
            ConvModule(2 * width, 4 * width, 3, stride=2, padding=1, **slots),
            *(ResidualBlock(4 * width, **reflect) for _ in range(num_blocks)),
            _upsample(4 * width, 2 * width, upsample_cfg, **slots),
            _upsample(2 * width, width, upsample_cfg, **slots),
            ConvModule(width, 3, 7, padding=3, padding_mode='reflect', act_cfg=dict(type='Tanh')),
        )

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[2] % 4 or images.shape[3] % 4:
            raise ValueError(
                'height and width of the images must be multiples of 4, '
                f'got {images.shape[2]}x{images.shape[3]}'
            )
        return self.layers(images)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with norms and a skip connection: x + conv(relu(conv(x)))."""

    def __init__(self, channels: int, **slots) -> None:
        super().__init__()
        self.conv1 = ConvModule(channels, channels, 3, padding=1, **slots)
        self.conv2 = ConvModule(channels, channels, 3, padding=1, act_cfg=None, **slots)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


@MODELS.register_module(force=True)
class PatchDiscriminator(nn.Module):
    """Classify overlapping patches of an image as real or generated (PatchGAN).

    The layers are 4x4 convolutions with leaky ReLUs. The first and the last convolution have no
    norm and ignore ``conv_cfg``.

    Shapes: [N, 3, H, W] in [-1, 1] -> logits [N, 1, h, w]. The receptive field of a logit is 16x16
    pixels for ``num_layers=1``, 34x34 for 2, and 70x70 for 3.

    Args:
        num_layers: Number of convolutions of stride 2.
        base_channels: Channels of the first convolution. Each of the next three doubles them.
        conv_cfg: Type of the convolutions, as in mmcv's ``ConvModule``.
        norm_cfg: Type of the norms. If the norm has no bias, the convolutions have one.
    """

    def __init__(
        self,
        num_layers: int = 3,
        base_channels: int = 64,
        conv_cfg: dict | None = None,
        norm_cfg: dict = dict(type='IN', affine=False),  # noqa: B006
    ) -> None:
        super().__init__()
        slots = _slots(conv_cfg, norm_cfg, base_channels)
        leaky = dict(act_cfg=dict(type='LeakyReLU', negative_slope=0.2))
        widths = [base_channels * min(2**i, 8) for i in range(num_layers + 1)]
        layers = [ConvModule(3, widths[0], 4, stride=2, padding=1, **leaky)]
        for i in range(num_layers):
            stride = 2 if i + 1 < num_layers else 1
            layers.append(
                ConvModule(widths[i], widths[i + 1], 4, stride=stride, padding=1, **slots, **leaky)
            )
        self.layers = nn.Sequential(*layers, ConvModule(widths[-1], 1, 4, padding=1, act_cfg=None))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def _slots(conv_cfg: dict | None, norm_cfg: dict | None, channels: int) -> dict:
    """Arguments of ``ConvModule``. The convolution has a bias unless the norm has one."""
    norm = build_norm_layer(norm_cfg, channels)[1] if norm_cfg else None
    return dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, bias=getattr(norm, 'bias', None) is None)


def _upsample(inputs: int, outputs: int, upsample_cfg: dict, *, bias: bool, **slots) -> nn.Module:
    """Double height and width with a convolution, a norm and a ReLU."""
    if upsample_cfg['type'] in ('nearest', 'bilinear'):
        resize = build_upsample_layer(upsample_cfg, scale_factor=2)
        return nn.Sequential(resize, ConvModule(inputs, outputs, 3, padding=1, bias=bias, **slots))
    deconv = build_upsample_layer(
        upsample_cfg, inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=bias
    )
    norm = build_norm_layer(slots['norm_cfg'], outputs)[1] if slots['norm_cfg'] else nn.Identity()
    return nn.Sequential(deconv, norm, nn.ReLU(inplace=True))
