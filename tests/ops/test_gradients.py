"""Analytic against numeric derivatives in float64, first and second order."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from nc_plugins import ops
from nc_plugins.layers import NCConv2d

from .cases import BACKENDS, NAMES, Case, run, served, tensors

SMALL = [
    Case('nc_conv2d', (2, 2), (4, 3), (3, 2), {'padding': 1}),
    Case('nc_conv2d', (4, 2), (4, 4), (2, 2), {'stride': 2, 'groups': 2, 'dilation': 2}),
    Case('nc_conv2d', (3, 2), (3, 3), (1, 1), {'stride': 2}),
    Case('nc_conv1d', (2, 2), (5,), (3,), {'padding': 'same'}),
    Case('nc_conv3d', (2, 2), (2, 3, 2), (2, 2, 1), {'padding': (1, 0, 0)}),
    Case('nc_conv_transpose2d', (2, 4), (3, 2), (3, 3), {'stride': 2, 'groups': 2}),
]


def function(backend, case, **switches):
    def call(x, weight, bias, gain):
        operator = getattr(ops, case.operator)
        return operator(x, weight, bias, gain=gain, **case.options, **switches, backend=backend)

    return call


def small_tensors(case):
    return [t.requires_grad_() for t in tensors(case, batch=2, mean=0.3)]


@served(SMALL)
def test_gradcheck(backend, case):
    assert gradcheck(function(backend, case, eps=0.1), small_tensors(case))


@served(SMALL)
def test_gradgradcheck(backend, case):
    assert gradgradcheck(function(backend, case, eps=0.1), small_tensors(case))


@pytest.mark.parametrize('switches', [{'center': False}, {'scale': False}], ids=str)
@served([SMALL[0], SMALL[5]])
def test_gradcheck_without_center_or_scale(backend, case, switches):
    assert gradcheck(function(backend, case, eps=0.1, **switches), small_tensors(case))


@served(SMALL)
def test_first_order_is_the_same_with_and_without_a_graph(backend, case):
    """The graph-making backward differentiates the forward; the other has explicit formulas."""
    given = [t.requires_grad_() for t in tensors(case)]
    out = function(backend, case)(*given)
    cotangent = torch.randn_like(out)
    explicit = torch.autograd.grad(out, given, cotangent, retain_graph=True)
    recorded = torch.autograd.grad(out, given, cotangent, create_graph=True)
    for name, a, b in zip(NAMES[1:], explicit, recorded, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        assert not a.requires_grad
        assert b.requires_grad or name == 'bias gradient'  # which depends on the cotangent alone


@pytest.mark.parametrize('backend', BACKENDS)
def test_second_order_of_a_weight_made_from_the_input(backend):
    """A weight computed from the input must not be counted twice by the recorded backward."""
    case = SMALL[0]
    x, weight, *_ = tensors(case)
    x.requires_grad_()

    def penalty(chosen):
        made = weight * x.mean()
        out = ops.nc_conv2d(x, made, padding=1, eps=0.1, backend=chosen)
        (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), x)[0]

    torch.testing.assert_close(penalty(backend), penalty('reference'))


# Largest relative difference of a loss, and of a last weight, by dtype: thirty steps on random
# targets let rounding grow, so a float32 run may leave another by a thousand roundings.
SAME_TRAINING = {
    torch.float64: (1e-9, 1e-9),
    torch.float32: (1e-4, 1e-3),
    torch.bfloat16: (2e-2, 1e-1),  # autocast
}


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('dtype', SAME_TRAINING, ids=str)
def test_thirty_steps_lead_to_the_same_place(backend, dtype):
    """Training two layers with the definition and with a backend: every loss, the last weights."""
    loss_tolerance, weight_tolerance = SAME_TRAINING[dtype]

    def train(chosen):
        torch.manual_seed(0)
        layers = [NCConv2d(3, 8, 3, padding=1, affine=True), NCConv2d(8, 6, 1, affine=True)]
        model = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1])
        for layer in layers:
            layer.backend = chosen
        x, target = torch.randn(4, 3, 8, 8) + 0.5, torch.randn(4, 6, 8, 8)
        if dtype == torch.float64:
            model, x, target = model.double(), x.double(), target.double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            with torch.autocast('cpu', torch.bfloat16, enabled=dtype == torch.bfloat16):
                out = model(x)
            loss = (out.to(x.dtype) - target).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        assert losses[-1] < 0.9 * losses[0]
        return torch.stack(losses), list(model.parameters())

    (losses, weights), (expected, last) = train(backend), train('reference')
    assert ((losses - expected) / expected).abs().max() <= loss_tolerance
    for a, e in zip(weights, last, strict=True):
        assert (a - e).abs().max() <= weight_tolerance * e.abs().max()


def test_run_uses_a_cotangent_that_sees_every_gradient():
    """Guards the helper: the gradient of a plain sum is zero for a normalised output."""
    case = SMALL[0]
    _, *grads = run('reference', case, tensors(case))
    assert all(grad.abs().max() > 1e-3 for grad in grads)
