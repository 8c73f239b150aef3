"""In evaluation a layer keeps what the operator makes of its weight, instead of making it anew."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from weakref import ref

import torch
from torch import Tensor


def can_fold(backend: ModuleType, *tensors: Tensor | None) -> bool:
    """Whether ``backend`` has a form of the weight to keep, and a call with these records nothing.

    Not for parameters made in inference mode: changes of theirs leave no trace.
    """
    given = [t for t in tensors if t is not None]
    return (
        hasattr(backend, 'fold')
        and not (torch.is_grad_enabled() and any(t.requires_grad for t in given))
        and not any(t.is_inference() for t in given[1:])
    )


class Folded:
    """One result, kept while the tensors it was made of are the same and unchanged.

    Empty again in every copy and pickle. It sees changes in place and exchanged tensors or memory.
    What is written through ``.data`` it does not see: :meth:`clear` is for that.
    """

    _kept = None

    def get(self, tensors: tuple[Tensor | None, ...], options: tuple, make: Callable):
        """``make(*tensors, *options)``."""
        kept = self._kept
        if kept is not None:
            value, sources, old_options = kept
            if options == old_options and all(map(_is_same, sources, tensors)):
                return value
        value = make(*tensors, *options)
        self._kept = (value, [_source(t) for t in tensors], options)
        return value

    def clear(self) -> None:
        self._kept = None

    def __reduce__(self):
        return Folded, ()


def _source(tensor: Tensor | None):
    if tensor is None:
        return None
    # The second is there to keep the memory from being given to another tensor.
    return ref(tensor), tensor.detach(), tensor._version


def _is_same(source, tensor: Tensor | None) -> bool:
    if source is None or tensor is None:
        return source is tensor
    itself, memory, version = source
    return (
        itself() is tensor
        and tensor._version == version
        and tensor.data_ptr() == memory.data_ptr()
        and tensor.dtype == memory.dtype
        and tensor.device == memory.device
        and tensor.shape == memory.shape
        and tensor.stride() == memory.stride()
    )
