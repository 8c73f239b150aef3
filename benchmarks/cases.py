"""The measured cases as data: convolutions of the networks in configs/, and whole training steps.

Each convolution is followed by a norm in the configs, or has a norm slot. This module does not
import torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Conv:
    """A convolution with a square kernel on an input of shape [batch, inputs, height, width].

    Args:
        count: how often the network contains this convolution.
        transposed: a transposed 3x3 convolution of stride 2 and output_padding 1, which doubles
            the image size.
        stem: the first convolution of the network. Its input is an image and needs no gradient.
        calls: consecutive calls in one measurement, which is their median. More than 1 for
            calls that take microseconds.
    """

    group: str
    batch: int
    inputs: int
    outputs: int
    kernel: int
    height: int
    width: int
    count: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    transposed: bool = False
    stem: bool = False
    calls: int = 1

    @property
    def name(self) -> str:
        words = [f'{self.batch}x{self.inputs}x{self.height}x{self.width}']
        words.append(f'{"up" if self.transposed else "k"}{self.kernel}')
        words.append(f'o{self.outputs}')
        words += [f's{self.stride}'] if self.stride > 1 else []
        words += [f'd{self.dilation}'] if self.dilation > 1 else []
        return f'{self.group}/{"-".join(words)}'

    @property
    def label(self) -> str:
        """The case in words, for tables and plots."""
        text = f'{self.kernel}x{self.kernel} {self.inputs} to {self.outputs} at '
        text += f'{self.height}x{self.width}' if self.height != self.width else f'{self.height}'
        text += f' stride {self.stride}' if self.stride > 1 else ''
        text += f' dilation {self.dilation}' if self.dilation > 1 else ''
        text += ' transposed' if self.transposed else ''
        return text + (f', batch {self.batch}' if self.batch > 32 else '')

    @property
    def positions(self) -> int:
        """Number of output positions in the batch."""
        if self.transposed:
            return self.batch * self.height * self.width * self.stride**2
        extent = self.dilation * (self.kernel - 1) + 1  # of the dilated kernel
        height, width = (
            (side + 2 * self.padding - extent) // self.stride + 1
            for side in (self.height, self.width)
        )
        return self.batch * height * width

    @property
    def patches(self) -> int:
        """Number of values in the im2col matrix."""
        return self.positions * self.inputs * self.kernel**2

    @property
    def products(self) -> int:
        """Number of multiplications in a forward pass."""
        share = self.stride**2 if self.transposed else 1
        return self.patches * self.outputs // share

    def shrunk(self, patches: int) -> Conv:
        """Reduce the batch, then the image, until im2col has at most ``patches`` values."""
        small = self
        while small.patches > patches and small.batch > 1:
            small = replace(small, batch=small.batch // 2)
        while small.patches > patches and min(small.height, small.width) > 2 * small.kernel:
            small = replace(small, height=small.height // 2, width=small.width // 2)
        return small


@dataclass(frozen=True)
class Model:
    """A training step of a classifier: forward, loss, backward, SGD."""

    group: str
    network: str
    size: int  # height and width of the images, in pixels
    batch: int
    classes: int

    @property
    def name(self) -> str:
        return f'{self.group}/{self.network}-{self.size}-b{self.batch}'

    @property
    def label(self) -> str:
        return f'{self.network}, {self.size} pixels, batch {self.batch}'

    @property
    def convolutions(self) -> tuple[Conv, ...]:
        rows = {'resnet50': _RESNET50, 'resnet18-cifar': _RESNET18_CIFAR}[self.network]
        return _rows(self.group, rows, self.batch, self.size, self.size)

    @property
    def products(self) -> int:
        return sum(conv.products * conv.count for conv in self.convolutions)


Case = Conv | Model

# inputs, outputs, kernel, stride, image size / input size, count
_RESNET50 = (
    (3, 64, 7, 2, 1, 1),
    (64, 64, 1, 1, 4, 1),
    (64, 64, 3, 1, 4, 3),
    (64, 256, 1, 1, 4, 4),  # including the shortcut
    (256, 64, 1, 1, 4, 2),
    (256, 128, 1, 1, 4, 1),
    (128, 128, 3, 2, 4, 1),
    (256, 512, 1, 2, 4, 1),
    (128, 512, 1, 1, 8, 4),
    (512, 128, 1, 1, 8, 3),
    (128, 128, 3, 1, 8, 3),
    (512, 256, 1, 1, 8, 1),
    (256, 256, 3, 2, 8, 1),
    (512, 1024, 1, 2, 8, 1),
    (256, 1024, 1, 1, 16, 6),
    (1024, 256, 1, 1, 16, 5),
    (256, 256, 3, 1, 16, 5),
    (1024, 512, 1, 1, 16, 1),
    (512, 512, 3, 2, 16, 1),
    (1024, 2048, 1, 2, 16, 1),
    (512, 2048, 1, 1, 32, 3),
    (2048, 512, 1, 1, 32, 2),
    (512, 512, 3, 1, 32, 2),
)
_RESNET18_CIFAR = (  # its stem is a 3x3 convolution of stride 1 without pooling
    (3, 64, 3, 1, 1, 1),
    (64, 64, 3, 1, 1, 4),
    (64, 128, 3, 2, 1, 1),
    (64, 128, 1, 2, 1, 1),
    (128, 128, 3, 1, 2, 3),
    (128, 256, 3, 2, 2, 1),
    (128, 256, 1, 2, 2, 1),
    (256, 256, 3, 1, 4, 3),
    (256, 512, 3, 2, 4, 1),
    (256, 512, 1, 2, 4, 1),
    (512, 512, 3, 1, 8, 3),
)
# The 3x3 convolutions of FPN and RPN have the same shapes on the first four pyramid scales. The RPN
# has a norm slot in mask-rcnn_r50-scratch_fpn_nc-all-rpn, and none in mmdet's gn-all.
_FPN = (
    (256, 256, 1, 1, 4, 1),
    (512, 256, 1, 1, 8, 1),
    (1024, 256, 1, 1, 16, 1),
    (2048, 256, 1, 1, 32, 1),
    (256, 256, 3, 1, 4, 2),
    (256, 256, 3, 1, 8, 2),
    (256, 256, 3, 1, 16, 2),
    (256, 256, 3, 1, 32, 2),
)


def _rows(group: str, rows, batch: int, height: int, width: int) -> tuple[Conv, ...]:
    return tuple(
        Conv(
            group, batch, inputs, outputs, kernel, height // scale, width // scale, count, stride,
            padding=kernel // 2, stem=inputs == 3,
        )
        for inputs, outputs, kernel, stride, scale, count in rows
    )  # fmt: skip


def _merged(convs) -> tuple[Conv, ...]:
    """List each shape once, with the sum of the counts."""
    counts: dict[Conv, int] = {}
    for conv in convs:
        shape = replace(conv, count=0)
        counts[shape] = counts.get(shape, 0) + conv.count
    return tuple(replace(shape, count=count) for shape, count in counts.items())


def _mask_rcnn() -> tuple[Conv, ...]:
    """Mask R-CNN R50-FPN on two images of 800x1333, which mmdet pads to multiples of 32."""
    group = 'mask-rcnn'
    return _merged(
        (
            *_rows(group, (*_RESNET50, *_FPN), 2, 800, 1344),
            Conv(group, 2, 256, 256, 3, 13, 21, 1, padding=1),  # RPN, coarsest scale
            Conv(group, 2 * 512, 256, 256, 3, 7, 7, 4, padding=1),  # box head, 512 RoIs per image
            Conv(group, 2 * 128, 256, 256, 3, 14, 14, 4, padding=1),  # mask head, 128 RoIs
        )
    )


def _deeplab() -> tuple[Conv, ...]:
    """The dilated convolutions of DeepLabV3 R50-d8 on two images of 512x512."""
    rows = ((256, 256, 2, 5), (512, 512, 2, 1), (512, 512, 4, 2))
    pyramid = ((2048, 512, 12, 1), (2048, 512, 24, 1), (2048, 512, 36, 1))
    return tuple(
        Conv('deeplab', 2, inputs, outputs, 3, 64, 64, count, padding=d, dilation=d)
        for inputs, outputs, d, count in (*rows, *pyramid)
    )


def _cyclegan() -> tuple[Conv, ...]:
    """Generator, then discriminator, on one image of 256x256.

    Reflection padding is a separate step, so layers that have it receive padded images here.
    """
    group = 'cyclegan'
    return (
        Conv(group, 1, 3, 64, 7, 262, 262, 1, stem=True),
        Conv(group, 1, 64, 128, 3, 256, 256, 1, stride=2, padding=1),
        Conv(group, 1, 128, 256, 3, 128, 128, 1, stride=2, padding=1),
        Conv(group, 1, 256, 256, 3, 66, 66, 18),
        Conv(group, 1, 256, 128, 3, 64, 64, 1, stride=2, padding=1, transposed=True),
        Conv(group, 1, 128, 64, 3, 128, 128, 1, stride=2, padding=1, transposed=True),
        Conv(group, 1, 64, 128, 4, 128, 128, 1, stride=2, padding=1),
        Conv(group, 1, 128, 256, 4, 64, 64, 1, stride=2, padding=1),
        Conv(group, 1, 256, 512, 4, 32, 32, 1, padding=1),
    )


_RESNET50_B2 = _rows('resnet50', _RESNET50, 2, 224, 224)
# So small that the time is the overhead of Python and of the dispatcher.
_TINY = Conv('overhead', 1, 4, 4, 3, 4, 4, count=1, padding=1, calls=100)
_CIFAR_STEP = Model('models', 'resnet18-cifar', 32, 2, classes=10)
_SHORT = ('k7-o64-s2', '56x56-k3-o64', '56x56-k1-o256', '14x14-k3-o256', '7x7-k3-o512')

GROUPS: dict[str, tuple[Case, ...]] = {
    'resnet50': _RESNET50_B2,
    'resnet50-b32': _rows('resnet50-b32', _RESNET50, 32, 224, 224),
    'resnet18-cifar': _rows('resnet18-cifar', _RESNET18_CIFAR, 2, 32, 32),
    'mask-rcnn': _mask_rcnn(),
    'deeplab': _deeplab(),
    'cyclegan': _cyclegan(),
    'models': (_CIFAR_STEP, Model('models', 'resnet50', 224, 2, classes=1000)),
    'overhead': (_TINY,),
    'models-b32': (Model('models-b32', 'resnet50', 224, 32, classes=1000),),
    'short': (*(c for c in _RESNET50_B2 if c.name.endswith(_SHORT)), _CIFAR_STEP),
}
CASES: dict[str, Case] = {case.name: case for group in GROUPS.values() for case in group}
