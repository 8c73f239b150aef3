"""Fixtures of all operator tests."""

import pytest
import torch

from nc_plugins.ops import triton as backend


@pytest.fixture(autouse=True)
def nan_filled_memory():
    """Fill torch.empty with NaN, so that a test notices a read before a write."""
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def loops_of_the_interpreter(monkeypatch):
    """Let Triton 3.6's interpreter loop up to a runtime argument with NumPy 2.4 or newer.

    It converts an array of one value to an integer, which NumPy refuses.
    """
    if backend.INTERPRETED:
        from triton.runtime import interpreter

        patch = interpreter._patch_lang_tensor

        def patch_again(tensor, scope):
            patch(tensor, scope)
            scope.set_attr(tensor, '__index__', lambda self: self.handle.data.item())

        monkeypatch.setattr(interpreter, '_patch_lang_tensor', patch_again)
