"""What is compared: a convolution and what stands in the norm slot behind it, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from cases import Case, Conv, Model
from torch import nn

from nc_plugins import ops
from nc_plugins.layers import NCAffine, NCConv2d, NCConvTranspose2d, PositionalNorm

DEFINITION_PATCHES = 2**28  # values of an im2col matrix it may make here: 1 GiB in float32

Pair = tuple[nn.Module, nn.Module]


def _like(conv: nn.Module, layer: type[nn.Module], **options) -> nn.Module:
    """``layer`` without bias in the shape of ``conv``, with its weight."""
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


def _plain(norm: Callable[[int], nn.Module]) -> Callable[[nn.Module], Pair]:
    return lambda conv: (_like(conv, type(conv)), norm(conv.out_channels))


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels), channels)


def _weight_standardized(conv: nn.Module) -> Pair | None:
    if conv.transposed:  # mmcv has no such layer
        return None
    from mmcv.cnn import ConvWS2d  # here, because it takes seconds

    return _like(conv, ConvWS2d), _group_norm(conv.out_channels)


# name -> from a convolution its replacement and the norm, or None where there is no such layer
SYSTEMS: dict[str, Callable[[nn.Module], Pair | None]] = {
    'nc': _nc('auto'),
    'nc-pair': _nc_pair,
    **{f'nc-{name}': _nc(name) for name in ops.available_backends() if name != 'reference'},
    'definition': _nc('reference'),
    'conv': _plain(lambda channels: nn.Identity()),
    'conv+gn': _plain(_group_norm),
    'conv+bn': _plain(nn.BatchNorm2d),
    **({'convws+gn': _weight_standardized} if find_spec('mmcv') else {}),
    'conv+pn': _plain(PositionalNorm),
}


def claims_nc(name: str) -> bool:
    """Whether the system must compute the definition."""
    return name == 'definition' or name.split('-')[0] == 'nc'


def layer(name: str, case: Conv) -> nn.Sequential | None:
    """Convolution and norm of ``case``, random; None where the system has no such layer."""
    shape = (case.inputs, case.outputs, case.kernel, case.stride, case.padding)
    if case.transposed:
        plain = nn.ConvTranspose2d(*shape, output_padding=1, bias=False)
    else:
        plain = nn.Conv2d(*shape, case.dilation, bias=False)
    pair = SYSTEMS[name](plain)
    return None if pair is None else nn.Sequential(*pair)


def model(name: str, case: Model) -> nn.Module:
    """torchvision's ResNet with every convolution and its norm replaced, and nothing else."""
    from torchvision.models import resnet18, resnet50

    if case.network == 'resnet50':
        network = resnet50(num_classes=case.classes)
    else:  # as mmpretrain's ResNet_CIFAR
        network = resnet18(num_classes=case.classes)
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    for parent in list(network.modules()):
        for child_name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                conv_name = child_name
            elif isinstance(child, nn.BatchNorm2d):  # torchvision lists it right behind
                conv, norm = SYSTEMS[name](getattr(parent, conv_name))
                setattr(parent, conv_name, conv)
                setattr(parent, child_name, norm)
    return network


def affine(block: nn.Sequential) -> tuple[nn.Parameter, nn.Parameter]:
    """Gain and bias of a block that claims to be NC, wherever they live."""
    conv, norm = block
    if isinstance(norm, NCAffine):
        return norm.weight, norm.bias
    return conv.gain, conv.bias


@dataclass(frozen=True)
class Options:
    """What a measurement depends on beside case and system."""

    threads: int = 2
    dtype: str = 'float32'  # bfloat16 is autocast
    layout: str = 'nchw'
    device: str = 'cpu'

    def place(self, item):
        """A module or an image batch where and how it is to lie."""
        layout = torch.channels_last if self.layout == 'channels_last' else torch.contiguous_format
        return item.to(self.device, memory_format=layout)

    def batch(self, case: Case, x: torch.Tensor) -> torch.Tensor:
        """The input of a case. What layers hand on under autocast is in its dtype, images are not.

        (GroupNorm hands on float32 there, so a convolution behind it has a cast to do that the
        systems with GroupNorm are spared here.)
        """
        activations = isinstance(case, Conv) and not case.stem
        return self.place(x.to(getattr(torch, self.dtype) if activations else torch.float32))

    def autocast(self):
        if self.dtype == 'float32':
            return nullcontext()
        return torch.autocast(self.device, getattr(torch, self.dtype))


@dataclass
class Work:
    """One system on one case, ready to run."""

    module: nn.Module
    input: torch.Tensor
    finish: Callable[[torch.Tensor], None]  # what a training step does after the forward pass
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
        block = options.place(layer(name, case))
        ready = Work(block, input, lambda out: out.backward(cotangent), options)
        with torch.no_grad():
            cotangent = torch.randn_like(ready.forward())
        return ready
    network = options.place(model(name, case))
    labels = torch.arange(case.batch, device=options.device) % case.classes
    # The work of a step counts, not where it leads: at this rate the weights stay as they are.
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6)

    def finish(out: torch.Tensor) -> None:
        F.cross_entropy(out.float(), labels).backward()
        optimizer.step()

    return Work(network, input, finish, options)


def images(case: Case, options: Options) -> torch.Tensor:
    """The input of a case, which all systems share."""
    if isinstance(case, Model):
        shape = (case.batch, 3, case.size, case.size)
    else:
        shape = (case.batch, case.inputs, case.height, case.width)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return options.batch(case, x).requires_grad_(isinstance(case, Conv) and not case.stem)


def systems_of(case: Case, wanted: Sequence[str], options: Options) -> list[str]:
    """Those of ``wanted`` that have this case and can run it there."""
    return [name for name in wanted if _has(name, case, options)]


def _has(name: str, case: Case, options: Options) -> bool:
    if name == 'convws+gn' and options.layout == 'channels_last':
        return False  # mmcv takes a view() of the weight which no such weight has
    if isinstance(case, Model):
        # Without a norm a ResNet overflows; with im2col it takes too long.
        convs = case.convolutions
        return name not in ('conv', 'definition') and all(_has(name, c, options) for c in convs)
    block = layer(name, case)
    if block is None or (name == 'definition' and case.patches > DEFINITION_PATCHES):
        return False
    if not name.startswith('nc-'):
        return True
    small = options.batch(case, torch.randn(1, case.inputs, *(case.kernel,) * 2))
    try:  # a backend that is named and cannot run says so
        with options.autocast(), torch.no_grad():
            options.place(block.eval())(small)
    except ValueError as error:
        if 'cannot run here' not in str(error):
            raise
        return False
    return True
