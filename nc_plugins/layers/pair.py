"""An NC convolution and the NCAffine behind it run as one operator.

In configs the affine of NC sits in the norm slot, a module of its own. Run one after the other the
two pass over the activations twice and keep them twice. So a convolution whose output went straight
into an NCAffine before does not run when it is called: it returns a :class:`Pending`, a tensor with
shape, dtype, device and a place in the graph, but no values yet. NCAffine finds out what is pending
and runs the operator once, its weight as gain and its bias as bias. Nothing is linked, no parameter
moves, either module may be used again elsewhere.

Whatever else reads a pending tensor gets the convolution's own output, computed then: it reaches
``Pending.__torch_dispatch__``, below autograd, and gradients come back through the tensor's own
node, :class:`_Deferred`. This holds for C++ as for Python. A layer that is read so is no half of a
pair, and runs when it is called from then on.

Input and weights must be the same then as in the call. A change in place is an error; one through
``.data``, which leaves no trace, is not seen.

What a layer has learned stays in force while a checkpoint may still run it again: the recomputation
of ``torch.utils.checkpoint`` matches saved tensors by their order.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from math import prod
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils._pytree import tree_map_only

from ..ops.geometry import Geometry, autocasts


def _members(names: str, kind=lambda member: member) -> set:
    return {kind(getattr(Tensor, name)) for name in names.split()}


def _getter(attribute):
    return attribute.__get__


# What says nothing of the values.
_METADATA = {
    *_members(
        'shape dtype device layout ndim requires_grad is_leaf is_cpu is_cuda is_meta is_sparse '
        'is_quantized _version',
        _getter,
    ),
    *_members(
        'size stride storage_offset is_contiguous dim ndimension numel nelement element_size '
        'get_device is_floating_point is_complex is_inference __len__'
    ),
    torch.is_floating_point,
    torch.is_complex,
    torch.is_inference,
    torch.numel,
}
# What reads memory without asking the dispatcher.
_MEMORY = _members(
    'numpy __array__ tolist data_ptr storage untyped_storage share_memory_ __dlpack__ '
    '__reduce_ex__ __deepcopy__ __repr__ __format__'
) | _members('__cuda_array_interface__', _getter)
# What would exchange the memory of a tensor that has none.
_REFUSED = _members('set_ resize_ resize_as_') | {Tensor.data.__set__}
# What waits for a gradient to come by.
_WATCHERS = {
    *_members('register_hook retain_grad requires_grad_'),
    *_members('grad grad_fn retains_grad', _getter),
    Tensor.requires_grad.__set__,
    torch.autograd.grad,
}
# Without it (it is private to torch) every call counts as one that a checkpoint may run again.
_hooks_on_saved_tensors = getattr(
    torch._C._autograd, '_top_saved_tensors_default_hooks', lambda _: True
)
_last = (lambda: None, lambda: None)  # weakly: what an NC convolution returned last, and which


class Habit:
    """What an NC convolution has learned of who reads its output.

    ``learned`` is True once that went straight into an NCAffine, and False for good once somebody
    else read it; ``defers`` is what the layer does. ``hooked`` is the version of the weight when
    hooks on saved tensors were last on: a checkpoint may run that call again until the weight
    changes.
    """

    defers = False
    learned: bool | None = None
    hooked: int | None = None

    def settle(self, weight: Tensor) -> bool:
        """Whether to defer now."""
        version = weight._version
        if self.defers is not bool(self.learned) and self.hooked != version:
            self.defers = bool(self.learned)
        if _hooks_on_saved_tensors(False) is not None:
            self.hooked = version
        return self.defers


def defers(layer: nn.Module, input: Tensor, weight: Tensor) -> bool:
    """Whether ``layer``, called in plain eager mode, is to return a :class:`Pending`.

    Not with hooks on the layer, subclasses of Tensor, a weight that is no Parameter, or functorch,
    whose ways with a pending tensor nobody has tried; nor with inference tensors, on which a change
    in place leaves no trace.
    """
    return (
        type(weight) is nn.Parameter
        and not weight.is_inference()
        and layer.habit.settle(weight)
        and type(input) in (Tensor, nn.Parameter)
        and not input.is_inference()
        and not torch.is_inference_mode_enabled()
        and not (layer._forward_hooks or layer._backward_hooks or layer._backward_pre_hooks)
        and not (hooks._global_forward_hooks or hooks._global_backward_hooks)
        and not hooks._global_backward_pre_hooks
        and not torch._C._are_functorch_transforms_active()
        and input.layout is torch.strided
    )


def made(layer: nn.Module, out: Tensor) -> None:
    """Note what ``layer`` returned, for :func:`learn`."""
    global _last
    if layer.habit.learned is None:
        _last = ref(out), ref(layer)


def learn(input: Tensor) -> None:
    """An NCAffine reads ``input``: if the last NC convolution made it, they are a pair."""
    out, layer = _last
    if out() is input and (layer := layer()) is not None and layer.habit.learned is None:
        layer.habit.learned = True


class Run:
    """A call of an NC convolution: which tensors, and in what state of grad mode and autocast."""

    __slots__ = (
        'autocast', 'device', 'dtype', 'geometry', 'grad', 'layer', 'shape', 'stamps', 'tensors',
    )  # fmt: skip

    def __init__(self, layer: nn.Module, tensors, geometry: Geometry, shape, dtype) -> None:
        self.layer, self.tensors, self.geometry = layer, tensors, geometry
        self.shape, self.dtype = shape, dtype  # of the output
        self.stamps = _stamps(tensors)
        self.device = tensors[0].device.type
        self.grad, self.autocast = torch.is_grad_enabled(), _autocast(self.device)

    def __call__(self, tensors=None) -> Tensor:
        """The layer's output, for its own tensors or others in their place.

        Raises:
            RuntimeError: one of its own is not what it was in the call.
        """
        now = _stamps(self.tensors)
        if now != self.stamps:
            names = ('input', 'weight', 'bias', 'gain')
            name = next(n for n, a, b in zip(names, now, self.stamps, strict=True) if a != b)
            layer = self.layer
            raise RuntimeError(
                f'{type(layer).__name__}({layer.in_channels}, {layer.out_channels}): {name} was '
                'changed in place before the output was read. The layer runs together with the '
                'NCAffine behind it, when that is called: call it before the change, or give the '
                f'layer a copy of the {name}'
            )
        return self.layer._run(*(tensors or self.tensors), self.geometry)

    def with_affine(self, norm: nn.GroupNorm) -> Tensor:
        """``norm(self())`` as one operator."""
        input, weight, bias, gain = self.tensors
        scale, shift = norm.weight, norm.bias
        if self.autocast is None and scale.dtype != weight.dtype:
            scale, shift = scale.to(weight.dtype), shift.to(weight.dtype)
        if bias is not None:
            shift = torch.addcmul(shift, scale, bias)
        return self((input, weight, shift, scale if gain is None else scale * gain))

    @contextmanager
    def state(self, grad: bool):
        """Autocast as it was in the call."""
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(grad))
            if self.device != 'meta':
                on = self.autocast is not None
                stack.enter_context(torch.autocast(self.device, self.autocast, enabled=on))
            yield


class Pending(Tensor):
    """The output of an NC convolution that has not run yet; made by :func:`defer`."""

    run: Run
    node = None  # in the graph, at birth
    values = None  # once somebody has read them
    exposed = False  # to writing: somebody holds a view of the values, or has written
    watched = False
    norm = None  # the one that ran it

    def affine(self, norm: nn.GroupNorm) -> Tensor | None:
        """``norm`` of this as one operator; None if anybody else reads or watches this."""
        run = self.run
        # A checkpoint that starts between the two calls the norm again, for the same answer.
        touched = self.norm is not norm and (self.values is not None or self.watched)
        if touched or self.exposed or self._history() is not self.node:
            return None
        if torch.is_grad_enabled() is not run.grad or _autocast(run.device) is not run.autocast:
            return None
        if norm.num_channels != run.layer.out_channels:
            return None
        self.norm = norm
        return run.with_affine(norm)

    def tensor(self) -> Tensor:
        """The same as an ordinary tensor."""
        with torch._C.DisableTorchFunctionSubclass():
            return self.view_as(self)

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _REFUSED:
            raise RuntimeError(
                f'{func.__name__} on the output of an NC convolution that an NCAffine has read or '
                'may read: give it a clone()'
            )
        if func in _MEMORY:
            args, kwargs = tree_map_only(Pending, Pending.tensor, (args, kwargs))
        elif func not in _METADATA:
            tree_map_only(Pending, lambda pending: pending._watch(func), (args, kwargs))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        schema = func._schema
        if schema.is_mutable or any(given.alias_info for given in schema.returns):
            tree_map_only(Pending, Pending._expose, (args, kwargs))
        args, kwargs = tree_map_only(Pending, Pending._read, (args, kwargs))
        return func(*args, **kwargs)

    def _watch(self, func) -> None:
        self.watched = True
        if self.norm is not None and func in _WATCHERS:
            self.run.layer.habit.learned = False
            raise RuntimeError(
                f'{type(self.run.layer).__name__} and the NCAffine behind it ran as one, so no '
                'gradient comes by between them: ask for it (register_hook, retain_grad, '
                'autograd.grad) before NCAffine is called, or in a forward hook of the layer'
            )

    def _expose(self) -> None:
        self.exposed = True

    def _read(self) -> Tensor:
        """The values outside of the graph, in the memory format that the wrapper has."""
        if self.values is None:
            self.run.layer.habit.learned = False
            with self.run.state(grad=False):
                values = self.run()
                with torch._C.DisableTorchFunctionSubclass():
                    strides = self.stride()
                if values.stride() != strides:
                    values = torch.empty_strided(
                        values.shape, strides, dtype=values.dtype, device=values.device
                    ).copy_(values)
                self.values = values
        return self.values

    def _history(self):
        with torch._C.DisableTorchFunctionSubclass():
            return self.grad_fn


def defer(layer: nn.Module, input, weight, bias, geometry: Geometry, shape, dtype) -> Pending:
    """The output of ``layer._run(input, weight, bias, layer.gain, geometry)``, to be computed.

    ``shape`` and ``dtype`` are the output's.
    """
    tensors = (input, weight, bias, layer.gain)
    run = Run(layer, tensors, geometry, shape, dtype)
    if run.grad and any(t is not None and t.requires_grad for t in tensors):
        return _Deferred.apply(*tensors, run)
    return _pending(run)


def _pending(run: Run) -> Pending:
    input, shape = run.tensors[0], run.shape
    out = Tensor._make_wrapper_subclass(
        Pending, shape, _strides(input, shape), dtype=run.dtype, device=input.device
    )
    torch._C._set_throw_on_mutable_data_ptr(out)
    out.run = run
    return out


class _Deferred(torch.autograd.Function):
    """The node of a pending tensor. Computes the convolution anew, as nothing was kept for it."""

    @staticmethod
    def forward(ctx, input, weight, bias, gain, run):
        ctx.run = run
        out = _pending(run)
        out.node = ctx
        return out

    @staticmethod
    def backward(ctx, grad):
        create_graph = torch.is_grad_enabled()
        needs = ctx.needs_input_grad[:4]
        with ctx.run.state(grad=True):
            aliases = [None if t is None else t.view_as(t) for t in ctx.run.tensors]
            wanted = [alias for alias, need in zip(aliases, needs, strict=True) if need]
            out = ctx.run(aliases)
            grads = iter(torch.autograd.grad(out, wanted, grad, create_graph=create_graph))
        return *(next(grads) if need else None for need in needs), None


def _stamps(tensors) -> list[tuple[int, int] | None]:
    """Change when a tensor is written in place, or its memory exchanged or freed."""
    return [None if t is None else (t._version, t.data_ptr()) for t in tensors]


def _autocast(device: str) -> torch.dtype | None:
    return torch.get_autocast_dtype(device) if autocasts(device) else None


def _strides(input: Tensor, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Of an output of this shape in the memory format of the input; None if contiguous."""
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(len(shape))
    if layout is None or input.is_contiguous() or not input.is_contiguous(memory_format=layout):
        return None
    channels = shape[1]
    spatial = (channels * prod(shape[axis + 1 :]) for axis in range(2, len(shape)))
    return (channels * prod(shape[2:]), 1, *spatial)
