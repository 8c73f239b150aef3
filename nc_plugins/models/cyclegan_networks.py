"""The two networks of CycleGAN (arXiv 1703.10593, Sec. 7.2 and the authors' release)."""

from mmcv.cnn import ConvModule, build_norm_layer, build_upsample_layer
from mmengine.registry import MODELS
from torch import Tensor, nn


# force=True: a second import of this file under another name must not be an error.
@MODELS.register_module(force=True)
class ResNetGenerator(nn.Module):
    """Translate images of one domain to another.

    Shapes: [N, 3, H, W] -> the same, H and W multiples of 4; input and output in [-1, 1].

    A 7x7 stem, two convolutions of stride 2, residual blocks, two upsamplings and a 7x7
    convolution to RGB with tanh; the stride-1 layers pad by reflection. Every convolution but the
    last has a norm behind it; the last one has none and stays plain whatever ``conv_cfg`` says:
    normalised, a patch could not say how bright it is to be.

    Args:
        num_blocks: 9 for images of 256 pixels and more, 6 for 128.
        base_channels: after the stem; the blocks have four times as many.
        conv_cfg, norm_cfg: as in mmcv's ConvModule. ``affine=False`` in ``norm_cfg`` gives the
            convolutions a bias, as the original has it, else the norm brings it.
        upsample_cfg: 'deconv' or 'NCDeconv', a transposed 3x3 convolution of stride 2; or
            'nearest', a resize followed by a 3x3 convolution.
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
                f'images are {images.shape[2]}x{images.shape[3]}, sides that 4 divides are wanted'
            )
        return self.layers(images)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), both 3x3 with their norms; no ReLU on the sum."""

    def __init__(self, channels: int, **slots) -> None:
        super().__init__()
        self.conv1 = ConvModule(channels, channels, 3, padding=1, **slots)
        self.conv2 = ConvModule(channels, channels, 3, padding=1, act_cfg=None, **slots)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


@MODELS.register_module(force=True)
class PatchDiscriminator(nn.Module):
    """Say of every patch how real it looks (PatchGAN).

    Shapes: [N, 3, H, W] in [-1, 1] -> logits [N, 1, h, w]. Each logit sees a square of 70 pixels
    with ``num_layers=3``, 34 with 2, 16 with 1.

    4x4 convolutions with leaky ReLUs. The first has no norm in the original, and the last gives
    the logits: both stay plain whatever ``conv_cfg`` says.

    Args:
        num_layers: convolutions of stride 2.
        base_channels: after the first one; doubled by each of the next three at most.
        conv_cfg, norm_cfg: as in :class:`ResNetGenerator`.
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
    """Arguments of a ConvModule; the convolution has a bias where no norm brings one."""
    norm = build_norm_layer(norm_cfg, channels)[1] if norm_cfg else None
    return dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, bias=getattr(norm, 'bias', None) is None)


def _upsample(inputs: int, outputs: int, upsample_cfg: dict, *, bias: bool, **slots) -> nn.Module:
    """Twice the height and width, then norm and ReLU."""
    if upsample_cfg['type'] in ('nearest', 'bilinear'):
        resize = build_upsample_layer(upsample_cfg, scale_factor=2)
        return nn.Sequential(resize, ConvModule(inputs, outputs, 3, padding=1, bias=bias, **slots))
    deconv = build_upsample_layer(
        upsample_cfg, inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=bias
    )
    norm = build_norm_layer(slots['norm_cfg'], outputs)[1] if slots['norm_cfg'] else nn.Identity()
    return nn.Sequential(deconv, norm, nn.ReLU(inplace=True))
