"""Half a swap is an error in the first training forward. The layers need no hook or tool for it."""

import copy
import gc

import pytest
import torch
from torch import nn
from torch.nn.modules.module import _global_forward_pre_hooks

from nc_plugins.layers import HalfSwapError, NCAffine, NCConv2d, NCConvTranspose2d, join_affines


def pair(convolution, norm):
    return nn.Sequential(convolution, norm, nn.ReLU(inplace=True))


X = torch.randn(2, 3, 6, 6)


class Net(nn.Module):
    """The pair has a path, and the forward is the caller's."""

    def __init__(self, conv, norm, between=lambda x: x):
        super().__init__()
        self.stem = nn.Module()
        self.stem.conv, self.stem.bn1, self.between = conv, norm, between

    def forward(self, x):
        return self.stem.bn1(self.between(self.stem.conv(x)))


@pytest.mark.parametrize('layer', [NCConv2d, NCConvTranspose2d])
def test_the_whole_swap_trains(layer):
    model = pair(layer(3, 8, 3, bias=False), NCAffine(8))
    for _ in range(3):
        model(X).square().mean().backward()
    assert not _global_forward_pre_hooks  # later iterations pay nothing


@pytest.mark.parametrize('layer', [NCConv2d, NCConvTranspose2d])
def test_batch_norm_left_standing(layer):
    model = Net(layer(3, 8, 3), nn.BatchNorm2d(8))
    for _ in range(2):  # a notebook cell that is run again gives the same answer
        with pytest.raises(
            HalfSwapError,
            match=r"^stem\.bn1 \(BatchNorm2d\) comes after stem\.conv .*norm_cfg=dict\(type='NC'",
        ):
            model(X)


def test_the_hook_ends_with_its_layers_or_in_evaluation():
    layer = NCConv2d(3, 8, 3)
    assert _global_forward_pre_hooks
    layer(X)
    assert not _global_forward_pre_hooks
    NCConv2d(3, 8, 3).eval()(X)
    assert not _global_forward_pre_hooks
    NCConv2d(3, 8, 3)
    gc.collect()
    nn.ReLU()(X)
    assert not _global_forward_pre_hooks


def test_a_model_that_is_evaluated_first_is_checked_when_it_trains():
    model = pair(NCConv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
    model(X)
    with pytest.raises(HalfSwapError):
        model.train()(X)


def test_other_modules_may_run_before_the_model():
    model = pair(NCConv2d(3, 8, 3), nn.BatchNorm2d(8))
    x = nn.ReLU()(X)  # such as a data preprocessor
    with pytest.raises(HalfSwapError):
        model(x)


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
    wanted = r"^stem\.bn1 .* comes after stem\.conv \(Conv2d\), .*: set conv_cfg=dict\(type='NC'\)"
    with pytest.raises(HalfSwapError, match=wanted):
        Net(nn.Conv2d(3, 8, 3), NCAffine(8))(X)
    pair(nn.Conv2d(3, 8, 3), NCAffine(8, allow_plain=True))(X)


def test_every_pair_is_checked_not_only_the_first():
    model = nn.Sequential(pair(NCConv2d(3, 3, 3), NCAffine(3)), nn.Conv2d(3, 8, 1), NCAffine(8))
    with pytest.raises(HalfSwapError, match=r'^2 .* comes after 1 \(Conv2d\)'):
        model(X)


class Deformable(nn.Module):
    """Like mmcv's ModulatedDeformConv2d: a kernel, but no nn.Conv2d."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 3, 3, 3))
        self.out_channels, self.kernel_size = 8, (3, 3)

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight)


def test_the_advice_can_be_followed():
    """A class that has no NC form is not told to set conv_cfg, which is set already."""
    model = nn.Sequential(pair(NCConv2d(3, 3, 3), NCAffine(3)), Net(Deformable(), NCAffine(8)))
    with pytest.raises(HalfSwapError, match=r'Deformable has no NC form, so set norm_cfg') as error:
        model(X)
    assert 'conv_cfg' not in str(error.value)


def test_no_false_alarm_by_a_compiled_convolution():
    conv = torch.compile(NCConv2d(3, 8, 3, bias=False), backend='eager')
    Net(conv, NCAffine(8))(X)
    conv = NCConv2d(3, 8, 3, bias=False)
    conv.compile(backend='eager')
    Net(conv, NCAffine(8))(X)


def test_no_false_alarm_by_a_compiled_convolution_before_batch_norm_that_is_allowed():
    conv = torch.compile(NCConv2d(3, 8, 3, allow_bn=True), backend='eager')
    Net(conv, nn.BatchNorm2d(8))(X)


@pytest.mark.parametrize(
    'between',
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.clone(),
        lambda x: x.float(),
    ],
)
def test_no_false_alarm_by_an_operation_between_the_two(between):
    model = Net(NCConv2d(3, 8, 3, bias=False), NCAffine(8), between)
    for _ in range(2):
        model(X).square().mean().backward()


def test_no_false_alarm_by_a_hook_that_returns_a_new_tensor():
    model = Net(NCConv2d(3, 8, 3, bias=False), NCAffine(8))
    model.stem.conv.register_forward_hook(lambda module, args, out: out * 1)
    assert join_affines(model) == 0
    model(X)


def test_no_false_alarm_by_a_block_with_a_norm_of_its_own():
    pytest.importorskip('mmcv')
    from mmcv.cnn import ConvModule

    import nc_plugins  # noqa: F401  registers

    block = ConvModule(3, 8, 3, conv_cfg={'type': 'NC'}, norm_cfg={'type': 'NC'})
    nn.Sequential(block, nn.BatchNorm2d(8))(X)


def test_a_layer_that_was_called_by_itself_does_not_hide_its_model():
    conv = NCConv2d(3, 8, 3)
    conv(X)
    with pytest.raises(HalfSwapError):
        pair(conv, nn.BatchNorm2d(8)).train()(X)


def test_no_false_alarm_by_layers_that_are_called_one_by_one():
    conv, norm = NCConv2d(3, 8, 3, bias=False), NCAffine(8)
    norm(conv(X))


def test_a_copy_of_a_checked_model_trains():
    model = pair(NCConv2d(3, 8, 3), NCAffine(8))
    model(X)
    copy.deepcopy(model).train()(X)


def test_evaluation_is_not_checked():
    """Export and tracing must see no hooks."""
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
