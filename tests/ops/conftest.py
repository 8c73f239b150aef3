"""Every operator test runs on torch.empty filled with NaN: what is read before it is written shows."""

import pytest
import torch


@pytest.fixture(autouse=True)
def nan_filled_memory():
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
