"""Joins a normalized convolution with the NCAffine behind it, so that both run as one kernel.

In configs the affine of NC sits in the norm slot, as a module of its own. Called one after the
other, the two modules pass over the activations twice. After :func:`join_affines` the convolution
applies the norm's weight and bias as its own gain and bias, and the norm returns its input.
Parameters, names and the state dict do not move. :func:`split_affines` undoes it.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from .neighbours import neighbours

_TAG = '_nc_joined'  # on the output of a joined convolution: (id of the convolution, version)
_READ = '_nc_read'  # on the same tensor, once its norm has returned it
_OUTPUT = '_nc_output'  # on the output of a convolution whose norm expects it, in the same form


def join_affines(model: nn.Module) -> int:
    """Join every normalized convolution in ``model`` with the NCAffine behind it.

    A pair is two siblings of the same number of channels, registered one after the other. It stays
    split if

    - mmcv's ConvModule runs the two in another order,
    - one of the two is used in two places, has hooks, or is compiled by itself,
    - the convolution has an affine of its own,
    - the two are on different devices, or FSDP holds their parameters.

    The output of a joined convolution includes the affine. So the norm must be its only reader:
    for hooks and feature extractors at the convolution, split first. The norm raises RuntimeError
    if its input is anything but the unchanged output of its convolution.

    Returns:
        The number of joined pairs in the model. A second call changes nothing.

    Example::

        model = nn.Sequential(NCConv2d(3, 8, 3, bias=False), NCAffine(8))
        join_affines(model)  # 1
    """
    from .conv import NormalizedConv
    from .norm import NCAffine, NCAffineAct

    uses = Counter(id(child) for parent in model.modules() for child in parent._modules.values())
    sharded = _inside_fsdp(model)
    _drop_orphans(model)
    joined = 0
    for conv_path, conv, norm_path, norm, parent in neighbours(model):
        if not (isinstance(conv, NormalizedConv) and isinstance(norm, NCAffine)):
            continue
        if conv._joined is norm:
            joined += 1
        elif (
            conv._joined is None
            and norm._joined is None
            and not conv.affine
            and uses[id(conv)] == uses[id(norm)] == 1
            and (type(norm).forward is NCAffine.forward or type(norm) is NCAffineAct)
            and not (_runs_otherwise(conv) or _runs_otherwise(norm))
            and conv.weight.device == norm.weight.device
            and not {parent, conv, norm} & sharded
        ):
            # Past nn.Module.__setattr__, which would register the norm as a child.
            conv.__dict__['_joined'] = norm
            norm.__dict__['_joined'] = conv
            norm.__dict__['_joined_paths'] = (conv_path, norm_path)
            joined += 1
    return joined


def split_affines(model: nn.Module) -> int:
    """Undo :func:`join_affines`. Returns the number of pairs that were split."""
    from .norm import NCAffine

    split = _drop_orphans(model)
    for norm in model.modules():
        if isinstance(norm, NCAffine) and norm._joined is not None:
            del norm._joined.__dict__['_joined']
            del norm.__dict__['_joined'], norm.__dict__['_joined_paths']
            split += 1
    return split


def _drop_orphans(model: nn.Module) -> int:
    """Split convolutions whose norm is not in the model, after it was replaced or left behind."""
    modules, dropped = set(model.modules()), 0
    for module in modules:
        norm = module.__dict__.get('_joined')
        if norm is not None and norm not in modules:
            del module.__dict__['_joined']
            module.__dict__.pop('_joined_paths', None)  # of a norm without its convolution
            dropped += 1
    return dropped


def without_join(replica: nn.Module) -> nn.Module:
    """Split one replica of nn.DataParallel. It would refer to the original modules."""
    for name in ('_joined', '_expects', '_expected_by'):
        replica.__dict__.pop(name, None)
    return replica


def applied_affine(norm: nn.Module, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gain and bias of a joined convolution with the bias ``bias``."""
    if bias is None:
        return norm.weight, norm.bias
    return norm.weight, torch.addcmul(norm.bias, norm.weight, bias)


def tag_output(conv: nn.Module, out: Tensor) -> None:
    """Tag the output of a joined convolution, for :func:`check_input` of its norm."""
    if isinstance(out, Tensor) and not torch.compiler.is_compiling():
        if conv._joined is not None:
            setattr(out, _TAG, (id(conv), _version(out)))
        if conv._expected_by:
            setattr(out, _OUTPUT, (id(conv), _version(out)))


def expect_output(norm: nn.Module, norm_path: str, convs: dict[str, nn.Module]) -> None:
    """Check in the first forward of ``norm`` that its input is the output of one of ``convs``.

    Args:
        convs: the convolutions by path. A norm that several of them share has several.
    """
    forget_expected(norm)
    norm.__dict__['_expects'] = (norm_path, convs)
    for conv in convs.values():
        conv.__dict__['_expected_by'] = conv._expected_by + 1


def forget_expected(norm: nn.Module) -> None:
    """Undo :func:`expect_output`."""
    _, convs = norm.__dict__.pop('_expects', (None, {}))
    for conv in convs.values():
        conv.__dict__['_expected_by'] -= 1
        if not conv._expected_by:
            del conv.__dict__['_expected_by']


def _check_expected(norm: nn.Module, input: Tensor) -> None:
    from .half_swap import HalfSwapError

    norm_path, convs = norm._expects
    if getattr(input, _OUTPUT, None) not in [(id(c), _version(input)) for c in convs.values()]:
        raise HalfSwapError(
            f'{norm_path} became the affine of {" and ".join(convs)}, but its input is not the '
            f'unchanged output of that convolution: build the model again and convert it with '
            f"keep=['{norm_path}']"
        )
    forget_expected(norm)


def check_input(norm: nn.Module, input: Tensor) -> None:
    """Raise RuntimeError unless ``input`` is the unchanged output of the joined convolution.

    For a norm that is not joined: if a convolution has applied the affine of another norm already.
    """
    if not isinstance(input, Tensor) or torch.compiler.is_compiling():
        return  # a torch.fx proxy, or a graph is captured: there is no module call to check
    if norm._expects is not None:
        _check_expected(norm, input)
    if norm._joined is None:
        if hasattr(input, _TAG) and not hasattr(input, _READ):
            raise RuntimeError(
                f'{type(norm).__name__} received the output of a convolution that is joined with '
                'another norm: call nc_plugins.layers.split_affines(model) and join again'
            )
        return
    if getattr(input, _TAG, None) != (id(norm._joined), _version(input)):
        conv_path, norm_path = norm._joined_paths
        raise RuntimeError(
            f'{norm_path} is joined with {conv_path}, which applies its gain and bias, but its '
            f'input is not the unchanged output of {conv_path}: call '
            'nc_plugins.layers.split_affines(model)'
        )
    setattr(input, _READ, True)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _runs_otherwise(module: nn.Module) -> bool:
    """Whether a call of the module does more than its forward, or is compiled."""
    return bool(
        module._compiled_call_impl
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _inside_fsdp(model: nn.Module) -> set[nn.Module]:
    """All modules whose parameters FSDP holds. By name: importing torch.distributed.fsdp is slow
    and fails where torch was built without it."""
    names = {'FullyShardedDataParallel', 'FSDPModule'}
    inside = set()
    for module in model.modules():
        if names & {cls.__name__ for cls in type(module).__mro__}:
            inside.update(module.modules())
    return inside
