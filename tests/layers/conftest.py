"""Fixtures of the layer tests."""

import pytest

from nc_plugins.layers import half_swap
from nc_plugins.ops import dispatch


@pytest.fixture(autouse=True)
def no_layers_waiting():
    """Layers of another test must not be checked in this one."""
    half_swap._waiting.clear()
    half_swap._remove_hook()
    yield
    half_swap._waiting.clear()
    half_swap._remove_hook()


@pytest.fixture
def calls(monkeypatch):
    """(bias, gain) of every call of the operator by a layer."""
    seen, run = [], dispatch.normalized_convolution

    def record(name, ndim, input, weight, bias, gain, *rest):
        seen.append((bias, gain))
        return run(name, ndim, input, weight, bias, gain, *rest)

    monkeypatch.setattr(dispatch, 'normalized_convolution', record)
    return seen
