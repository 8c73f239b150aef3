"""Operator tests run on torch.empty filled with NaN, so that reading before writing shows."""

import pytest
import torch


@pytest.fixture(autouse=True)
def nan_filled_memory():
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
