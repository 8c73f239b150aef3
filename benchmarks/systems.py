"""The compared systems by name: each replaces a convolution and the norm behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

import torch
import torch.nn.functional as F
from cases import Case, Conv, Model
from torch import nn

from nc_plugins import deploy, ops
from nc_plugins.layers import (
    NCAffine,
    NCConv2d,
    NCConvTranspose2d,
    PositionalNorm,
    join_affines,
)

DEFINITION_PATCHES = 2**28  # largest im2col matrix to build here, in values: 1 GiB in float32

Pair = tuple[nn.Module, nn.Module]


class System(NamedTuple):
    """How a network is changed.

    Args:
        build: takes a convolution and returns its replacement and the norm behind it, or None
            if the system has no such layer.
        finish: changes the complete module, after it was moved to its device.
        trains: False if the system is for inference only.
    """

    build: Callable[[nn.Module], Pair | None]
    finish: Callable[[nn.Module], nn.Module] = lambda module: module
    trains: bool = True


def _like(conv: nn.Module, layer: type[nn.Module], **options) -> nn.Module:
    """A ``layer`` without bias that has the shape and the weight of ``conv``."""
    names = ('in_channels', 'out_channels', 'kernel_size', 'stride', 'padding', 'dilation')
    shape = {name: getattr(conv, name) for name in names}
    if conv.transposed:
        shape['output_padding'] = conv.output_padding
    new = layer(**shape, bias=False, **options)
    with torch.no_grad():
        new.weight.copy_(conv.weight)
    return new


def _nc(backend: str) -> Callable[[nn.Module], Pair]:
    """The layer with its own affine on one backend."""

    def build(conv: nn.Module) -> Pair:
        layer = NCConvTranspose2d if conv.transposed else NCConv2d
        return _like(conv, layer, affine=True, backend=backend), nn.Identity()

    return build


def _nc_pair(conv: nn.Module) -> Pair:
    layer = NCConvTranspose2d if conv.transposed else NCConv2d
    return _like(conv, layer), NCAffine(conv.out_channels)


def _join(module: nn.Module) -> nn.Module:
    if not join_affines(module):
        raise RuntimeError('join_affines found no pair of NC convolution and NCAffine')
    return module


def _plain(norm: Callable[[int], nn.Module]) -> Callable[[nn.Module], Pair]:
    return lambda conv: (_like(conv, type(conv)), norm(conv.out_channels))


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels), channels)


def _weight_standardized(conv: nn.Module) -> Pair | None:
    if conv.transposed:  # mmcv has no such layer
        return None
    from mmcv.cnn import ConvWS2d  # a late import, because it takes seconds

    return _like(conv, ConvWS2d), _group_norm(conv.out_channels)


def _by_backend() -> dict[str, System]:
    """The layer on each backend, as it trains and deployed for inference."""
    systems = {}
    for backend in ops.available_backends():
        if backend != 'reference':
            build = _nc(backend)
            systems[f'nc-{backend}'] = System(build)
            systems[f'nc-{backend}-deployed'] = System(build, deploy, trains=False)
    return systems


SYSTEMS: dict[str, System] = {
    'nc': System(_nc('auto')),
    'nc-pair': System(_nc_pair, _join),
    'nc-split': System(_nc_pair),
    **_by_backend(),
    'definition': System(_nc('reference')),
    'conv': System(_plain(lambda channels: nn.Identity())),
    'conv+gn': System(_plain(_group_norm)),
    'conv+bn': System(_plain(nn.BatchNorm2d)),
    **({'convws+gn': System(_weight_standardized)} if find_spec('mmcv') else {}),
    'conv+pn': System(_plain(PositionalNorm)),
}


def claims_nc(name: str) -> bool:
    """Whether the system must compute normalized convolution."""
    return name == 'definition' or name.split('-')[0] == 'nc'


def trains(name: str) -> bool:
    return SYSTEMS[name].trains


def baselines(name: str) -> tuple[str, ...]:
    """The systems that this one is compared with, if they are measured together."""
    if not claims_nc(name):
        return ()
    bases = ('conv', 'conv+gn', 'convws+gn')
    if name in ('nc-pair', 'nc-split', 'definition'):
        return (*bases, 'nc')
    if name.endswith('-deployed'):
        return (*bases, name.removesuffix('-deployed'))
    return bases


def layer(name: str, case: Conv) -> nn.Sequential | None:
    """Convolution and norm of ``case`` with random weights, not finished.

    None if the system has no such layer.
    """
    shape = (case.inputs, case.outputs, case.kernel, case.stride, case.padding)
    if case.transposed:
        plain = nn.ConvTranspose2d(*shape, output_padding=1, bias=False)
    else:
        plain = nn.Conv2d(*shape, case.dilation, bias=False)
    pair = SYSTEMS[name].build(plain)
    return None if pair is None else nn.Sequential(*pair)


def model(name: str, case: Model) -> nn.Module:
    """torchvision's ResNet with each convolution and its norm replaced, not finished."""
    from torchvision.models import resnet18, resnet50

    if case.network == 'resnet50':
        network = resnet50(num_classes=case.classes)
    else:  # the stem of mmpretrain's ResNet_CIFAR
        network = resnet18(num_classes=case.classes)
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    for parent in list(network.modules()):
        for child_name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                conv_name = child_name
            elif isinstance(child, nn.BatchNorm2d):  # follows its convolution
                conv, norm = SYSTEMS[name].build(getattr(parent, conv_name))
                setattr(parent, conv_name, conv)
                setattr(parent, child_name, norm)
    return network


def affine(block: nn.Sequential) -> tuple[nn.Parameter, nn.Parameter]:
    """Gain and bias of an NC block, from the norm or from the convolution."""
    conv, norm = block
    if isinstance(norm, NCAffine):
        return norm.weight, norm.bias
    return conv.gain, conv.bias


@dataclass(frozen=True)
class Options:
    """The conditions of a measurement."""

    threads: int = 2
    dtype: str = 'float32'  # bfloat16 means autocast
    layout: str = 'nchw'
    device: str = 'cpu'

    def place(self, item):
        """Move a module or a batch of images to the device and the memory layout."""
        layout = torch.channels_last if self.layout == 'channels_last' else torch.contiguous_format
        return item.to(self.device, memory_format=layout)

    def batch(self, case: Case, x: torch.Tensor) -> torch.Tensor:
        """The input of a case: images in float32, activations in the autocast dtype.

        GroupNorm returns float32 under autocast, so in a network the convolution behind it
        also casts its input. The systems with GroupNorm are spared that cast here.
        """
        activations = isinstance(case, Conv) and not case.stem
        return self.place(x.to(getattr(torch, self.dtype) if activations else torch.float32))

    def autocast(self):
        if self.dtype == 'float32':
            return nullcontext()
        return torch.autocast(self.device, getattr(torch, self.dtype))


@dataclass
class Work:
    """One system on one case, ready to run.

    Args:
        finish: completes a training step after the forward pass.
    """

    module: nn.Module
    input: torch.Tensor
    finish: Callable[[torch.Tensor], None]
    options: Options

    def forward(self) -> torch.Tensor:
        with self.options.autocast():
            return self.module(self.input)

    def clear(self) -> None:
        self.input.grad = None
        self.module.zero_grad(set_to_none=True)


def work(name: str, case: Case, options: Options, input: torch.Tensor) -> Work:
    torch.manual_seed(0)
    if isinstance(case, Conv):
        block = SYSTEMS[name].finish(options.place(layer(name, case)))
        ready = Work(block, input, lambda out: out.backward(cotangent), options)
        with torch.no_grad():
            cotangent = torch.randn_like(ready.forward())
        return ready
    network = SYSTEMS[name].finish(options.place(model(name, case)))
    if not trains(name):
        return Work(network, input, lambda out: None, options)
    labels = torch.arange(case.batch, device=options.device) % case.classes
    # The learning rate is so small that the weights keep their size over many steps.
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6)

    def finish(out: torch.Tensor) -> None:
        F.cross_entropy(out.float(), labels).backward()
        optimizer.step()

    return Work(network, input, finish, options)


def images(case: Case, options: Options) -> torch.Tensor:
    """The input of a case, shared by all systems."""
    if isinstance(case, Model):
        shape = (case.batch, 3, case.size, case.size)
    else:
        shape = (case.batch, case.inputs, case.height, case.width)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return options.batch(case, x).requires_grad_(isinstance(case, Conv) and not case.stem)


def systems_of(case: Case, wanted: Sequence[str], options: Options) -> list[str]:
    """The systems of ``wanted`` that have this case and can run it under these conditions."""
    return [name for name in wanted if _has(name, case, options)]


def _has(name: str, case: Case, options: Options) -> bool:
    if name == 'convws+gn' and options.layout == 'channels_last':
        return False  # mmcv calls view() on the weight, which fails in channels_last
    if isinstance(case, Model):
        # A ResNet without a norm overflows, and im2col takes too long.
        convs = case.convolutions
        return name not in ('conv', 'definition') and all(_has(name, c, options) for c in convs)
    block = layer(name, case)
    if block is None or (name == 'definition' and case.patches > DEFINITION_PATCHES):
        return False
    if not name.startswith('nc-'):
        return True
    small = options.batch(case, torch.randn(1, case.inputs, *(case.kernel,) * 2))
    try:  # a named backend that cannot run raises ValueError
        with options.autocast(), torch.no_grad():
            options.place(block.eval())(small)
    except ValueError as error:
        if 'cannot run here' not in str(error):
            raise
        return False
    return True
