"""Small models of NC layers, and how their gradients are compared."""

import copy

import torch
from torch import nn

from nc_plugins.layers import NCAffine, NCConv2d, split_affines

X = torch.randn(2, 4, 7, 6, dtype=torch.float64, generator=torch.manual_seed(0))


def randomize(model):
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def pair(layer=NCConv2d, **options):
    """A convolution of 4 to 6 channels and the NCAffine behind it, in float64."""
    options = {'kernel_size': 3, 'bias': False, 'backend': 'aten', **options}
    return randomize(nn.Sequential(layer(4, 6, **options), NCAffine(6)).double())


class NormFirst(nn.Module):
    """Joins by structure, but its norm does not receive the output of its convolution."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = NCConv2d(4, 4, 3), NCAffine(4, allow_plain=True)

    def forward(self, x):
        return self.conv(self.norm(x))


def split_copy(model):
    other = copy.deepcopy(model)
    split_affines(other)
    return other


def gradients(model, x, forward=None):
    """The output and every gradient, with a random cotangent."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    out = (forward or model)(x)
    cotangent = torch.randn(out.shape, generator=torch.manual_seed(0), dtype=torch.float64)
    out.backward(cotangent.to(out.dtype))
    named = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {'output': out.detach(), 'input': x.grad, **named}


def assert_same(ours, theirs, tolerance=1e-10):
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=tolerance, atol=tolerance, msg=name
        )
