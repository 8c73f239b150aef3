"""The convolutions of the networks that the Triton backend is compiled for."""

from __future__ import annotations

from typing import NamedTuple

from nc_plugins.ops.geometry import Geometry


class Layer(NamedTuple):
    """One convolution. Its input has the size of the image divided by ``scale``."""

    inputs: int
    outputs: int
    kernel: int
    scale: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1

    @property
    def geometry(self) -> Geometry:
        pad = self.dilation * (self.kernel - 1) // 2
        return Geometry(
            (self.kernel,) * 2, (self.stride,) * 2, ((pad, pad),) * 2, (self.dilation,) * 2,
            self.groups,
        )  # fmt: skip

    def shape(self, batch: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Of the input, for images of this size."""
        return batch, self.inputs, -(-height // self.scale), -(-width // self.scale)


def resnet50(groups: int = 1, width: int = 64) -> list[Layer]:
    """The layers of a ResNet-50, or of a ResNeXt-50 (32x4d) with 32 groups of width 4."""
    layers, inputs = [Layer(3, 64, 7, 1, 2)], 64
    for stage in range(4):
        middle, outputs = width * groups * 2**stage, 256 * 2**stage
        scale, stride = (4, 1) if stage == 0 else (4 * 2 ** (stage - 1), 2)
        layers += [
            Layer(inputs, middle, 1, scale),
            Layer(middle, middle, 3, scale, stride, groups=groups),
            Layer(inputs, outputs, 1, scale, stride),
            Layer(middle, outputs, 1, scale * stride),
            Layer(outputs, middle, 1, scale * stride),
            Layer(middle, middle, 3, scale * stride, groups=groups),
        ]
        inputs = outputs
    return layers


NETWORKS = {
    'ResNet-50': resnet50(),
    'ResNeXt-50': resnet50(groups=32, width=4),
    'DeepLab': [
        Layer(512, 512, 3, 8, dilation=4),
        Layer(2048, 256, 1, 8),
        Layer(2048, 256, 3, 8, dilation=12),
        Layer(2048, 2048, 3, 8, dilation=12, groups=2048),  # separable
        Layer(1280, 256, 1, 8),
        Layer(304, 256, 3, 4),
    ],
    'Mask R-CNN': [
        *(Layer(256 * 2**level, 256, 1, 4 * 2**level) for level in range(4)),
        Layer(256, 256, 3, 4),
        Layer(256, 256, 3, 16),
    ],
    'CycleGAN': [
        Layer(3, 64, 7, 1),
        Layer(64, 128, 3, 1, 2),
        Layer(256, 256, 3, 4),
        Layer(64, 3, 7, 1),
        Layer(3, 64, 4, 1, 2),
        Layer(128, 256, 4, 4, 2),
        Layer(256, 512, 4, 8),
        Layer(512, 1, 4, 8),
    ],
}
