"""A convolution and a norm that have met, and what they are compared with."""

import copy

import torch
from torch import nn

from nc_plugins.layers import NCAffine, NCConv2d

X = torch.randn(2, 4, 7, 6, dtype=torch.float64)


def norm_like(layer, **factory):
    norm = NCAffine(layer.out_channels, **factory).to(layer.weight.dtype)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


def pair(layer=NCConv2d, x=X, **options):
    """A layer and a norm that have met."""
    options = {'kernel_size': 3, 'bias': False, 'backend': 'aten', **options}
    conv = layer(4, 6, **options, dtype=torch.float64)
    model = nn.Sequential(conv, norm_like(conv))
    model(x)
    assert conv.habit.learned
    return model


def apart(model):
    """A copy whose convolutions run when they are called."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if hasattr(module, 'habit'):
            module.habit.learned = False
    return model


def gradients(model, x, forward=None):
    """The output and every gradient, by a random cotangent."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    out = (forward or model)(x)
    cotangent = torch.randn(out.shape, generator=torch.manual_seed(0), dtype=out.dtype)
    out.backward(cotangent)
    named = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {'output': out.detach(), 'input': x.grad, **named}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-10, atol=1e-10, msg=name)


def assert_all_agree(model, x=X, forward=None):
    other = apart(model)
    last = (lambda x: other(x)[0]) if isinstance(other(x), tuple) else None
    assert_same(gradients(model, x, forward), gradients(other, x, last))
