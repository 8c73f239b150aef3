"""Half a swap is an error in the first training forward, with nothing but the layers."""

import gc

import pytest
import torch
from torch import nn
from torch.nn.modules.module import _global_forward_pre_hooks

from nc_plugins.layers import HalfSwapError, NCAffine, NCConv2d, NCConvTranspose2d


def pair(convolution, norm):
    return nn.Sequential(convolution, norm, nn.ReLU(inplace=True))


X = torch.randn(2, 3, 6, 6)


@pytest.mark.parametrize('layer', [NCConv2d, NCConvTranspose2d])
def test_the_whole_swap_trains(layer):
    model = pair(layer(3, 8, 3, bias=False), NCAffine(8))
    for _ in range(3):
        model(X).square().mean().backward()
    assert not _global_forward_pre_hooks  # later iterations pay nothing


@pytest.mark.parametrize('layer', [NCConv2d, NCConvTranspose2d])
def test_batch_norm_left_standing(layer):
    model = pair(layer(3, 8, 3), nn.BatchNorm2d(8))
    for _ in range(2):  # a notebook cell that is run again gets the same answer
        with pytest.raises(
            HalfSwapError, match=r"BatchNorm2d\(8\) follows .*norm_cfg=dict\(type='NC'"
        ):
            model(X)
        assert not _global_forward_pre_hooks


def test_the_watch_ends_with_its_layer_or_in_evaluation():
    layer = NCConv2d(3, 8, 3)
    layer(X)
    assert _global_forward_pre_hooks
    layer.eval()(X)
    assert not _global_forward_pre_hooks
    NCConv2d(3, 8, 3)(X)
    gc.collect()
    assert not _global_forward_pre_hooks


def test_batch_norm_behind_any_layer_of_the_first_iteration():
    shared = NCConv2d(3, 3, 3, padding=1)
    tail = pair(NCConv2d(3, 8, 3), nn.BatchNorm2d(8))
    with pytest.raises(HalfSwapError):
        tail(shared(shared(X)))  # the shared layer's second run must not end the watch for good


def test_batch_norm_allowed_by_name():
    model = pair(NCConv2d(3, 8, 3, allow_bn=True), nn.BatchNorm2d(8))
    for _ in range(2):
        model(X)


def test_batch_norm_elsewhere_is_nobodys_business():
    nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), pair(NCConv2d(3, 8, 3), NCAffine(8)))(X)


@pytest.mark.parametrize('norm', [nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), nn.Identity()])
def test_other_norms_may_follow(norm):
    pair(NCConv2d(3, 8, 3), norm)(X)


def test_norm_slot_without_convolution():
    with pytest.raises(HalfSwapError, match=r"NCAffine\(8\) .* set conv_cfg=dict\(type='NC'\)"):
        pair(nn.Conv2d(3, 8, 3), NCAffine(8))(X)
    pair(nn.Conv2d(3, 8, 3), NCAffine(8, allow_plain=True))(X)


def test_every_pair_is_checked_not_only_the_first():
    model = nn.Sequential(pair(NCConv2d(3, 3, 3), NCAffine(3)), nn.Conv2d(3, 8, 1), NCAffine(8))
    with pytest.raises(HalfSwapError, match=r'NCAffine\(8\)'):
        model(X)


def test_evaluation_is_not_checked():
    """A trained model is past the slip; export and tracing must see no hooks."""
    pair(nn.Conv2d(3, 8, 3), NCAffine(8)).eval()(X)
    pair(NCConv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()(X)
    assert not _global_forward_pre_hooks


def test_gradient_checkpointing():
    model = pair(NCConv2d(3, 8, 3), NCAffine(8))
    x = X.clone().requires_grad_()
    out = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)
    out.square().mean().backward()
    assert x.grad.abs().max() > 0


def test_compiles():
    model = pair(NCConv2d(3, 8, 3), NCAffine(8))
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    torch.testing.assert_close(compiled(X), model(X))
