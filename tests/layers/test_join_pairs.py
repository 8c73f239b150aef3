"""The pairs that join_affines joins, those that it leaves, and the errors of wrong calls."""

import copy

import pytest
import torch
from torch import nn

from nc_plugins.layers import NCAffine, NCConv2d, join_affines, split_affines

from .models import X, assert_same, gradients, pair, randomize, split_copy


class Doubled(NCAffine):
    def forward(self, input):
        return 2 * super().forward(input)


class Block(nn.Module):
    """Registered in the order given; the norm runs first if ``norm_first``."""

    def __init__(self, norm_first):
        super().__init__()
        self.conv = NCConv2d(4, 4, 3, padding=1, bias=False)
        self.norm = NCAffine(4, allow_plain=True)
        self.norm_first = norm_first

    def forward(self, x):
        if self.norm_first:
            return self.conv(self.norm(x))
        return self.norm(self.conv(x))


def test_a_wrong_join_is_an_error_that_names_both_modules():
    model = nn.Sequential(nn.Conv2d(4, 4, 1), Block(norm_first=True)).double()
    assert join_affines(model) == 1  # structure cannot tell
    wanted = r'1\.norm is joined with 1\.conv, .* call nc_plugins\.layers\.split_affines\(model\)'
    for forward in (model, model.eval()):
        with pytest.raises(RuntimeError, match=wanted):
            forward(X)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=wanted):
        model(X)
    split_affines(model)
    model(X)


@pytest.mark.parametrize(
    'change',
    [
        lambda out: out.clone(),
        lambda out: out.mul_(2),
        lambda out: out[:1],
        lambda out: out.contiguous(memory_format=torch.channels_last),
        lambda out: torch.zeros_like(out),
    ],
)
@pytest.mark.parametrize('grad', [True, False])
def test_a_change_between_the_two_is_an_error(change, grad):
    model = pair()
    join_affines(model)
    with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match='1 is joined with 0'):
        model[1](change(model[0](X)))


def test_the_output_of_another_convolution_is_an_error():
    first, second = pair(), pair()
    join_affines(first), join_affines(second)
    with pytest.raises(RuntimeError, match='is joined with'):
        first[1](second[0](X))


def test_calls_may_be_interleaved():
    """Two branches, whose norms run after both convolutions."""
    first, second = pair(), pair()
    expected = first(X) + second(X)
    join_affines(first), join_affines(second)
    a, b = first[0](X), second[0](X)
    torch.testing.assert_close(first[1](a) + second[1](b), expected)


def shared_norm():
    model = pair()
    return nn.Sequential(model[0], model[1], NCConv2d(6, 6, 1, bias=False), model[1]).double()


def shared_convolution():
    model = pair()
    return nn.ModuleList([nn.Sequential(model[0], model[1]), nn.Sequential(model[0], NCAffine(6))])


def hooked(which, register):
    model = pair()
    getattr(model[which], register)(lambda *args: None)
    return model


def between():
    model = pair()
    return nn.Sequential(model[0], nn.ReLU(), model[1])


def compiled_convolution():
    model = pair()
    model[0].compile(backend='eager')
    return model


def wrapped(name):
    model = pair()
    model.__class__ = type(name, (nn.Sequential,), {})
    return model


NOT_JOINED = {
    'the norm is shared': shared_norm,
    'the convolution is shared': shared_convolution,
    'the convolution has a forward hook': lambda: hooked(0, 'register_forward_hook'),
    'the convolution has a backward hook': lambda: hooked(0, 'register_full_backward_hook'),
    'the norm has a forward hook': lambda: hooked(1, 'register_forward_hook'),
    'the norm has a forward pre-hook': lambda: hooked(1, 'register_forward_pre_hook'),
    'the norm has a backward hook': lambda: hooked(1, 'register_full_backward_pre_hook'),
    'a module lies between': between,
    'convolutions first, then norms': lambda: nn.Sequential(
        NCConv2d(4, 4, 3), NCConv2d(4, 4, 3), NCAffine(4), NCAffine(4)
    ),
    'channels differ': lambda: nn.Sequential(NCConv2d(4, 6, 3), NCAffine(4)),
    'the norm comes first': lambda: nn.Sequential(NCAffine(4), NCConv2d(4, 4, 3)),
    'the convolution is plain': lambda: nn.Sequential(nn.Conv2d(4, 6, 3), NCAffine(6)),
    'a norm with another forward': lambda: nn.Sequential(NCConv2d(4, 6, 3), Doubled(6)),
    'the convolution is compiled': lambda: compiled_convolution(),
    'another norm': lambda: nn.Sequential(NCConv2d(4, 6, 3), nn.GroupNorm(1, 6)),
    'the layer has its own affine': lambda: pair(affine=True),
    'FSDP 1': lambda: wrapped('FullyShardedDataParallel'),
    'FSDP 2': lambda: wrapped('FSDPModule'),
}


@pytest.mark.parametrize('case', NOT_JOINED)
def test_not_joined(case):
    model = NOT_JOINED[case]()
    assert join_affines(model) == 0
    assert split_affines(model) == 0


def test_another_device_is_not_joined():
    model = pair()
    model[1].to('meta')
    assert join_affines(model) == 0


@pytest.mark.parametrize(
    ('order', 'joined'),
    [
        (('conv', 'norm', 'act'), 1),
        (('norm', 'conv', 'act'), 0),
        (('conv', 'act', 'norm'), 0),
        (('act', 'conv', 'norm'), 1),
    ],
)
def test_conv_module_of_mmcv(order, joined):
    pytest.importorskip('mmcv')
    from mmcv.cnn import ConvModule

    import nc_plugins  # noqa: F401  registers

    nc = {'type': 'NC'}
    model = ConvModule(4, 4, 3, conv_cfg=nc, norm_cfg=nc, order=order, inplace=False).double()
    randomize(model)
    expected = gradients(model, X)
    assert join_affines(model) == joined
    assert_same(gradients(model, X), expected)


def test_a_norm_that_was_replaced_is_an_error_until_the_model_is_joined_again():
    model = pair()
    join_affines(model)
    model[1] = randomize(NCAffine(6)).double()
    with pytest.raises(RuntimeError, match=r'joined with another norm: call .*split_affines'):
        model(X)
    assert split_affines(model) == 1
    expected = model(X)
    assert join_affines(model) == 1
    torch.testing.assert_close(model(X), expected)


def test_a_convolution_that_was_copied_without_its_norm():
    model = pair()
    join_affines(model)
    other = nn.Sequential(copy.deepcopy(model[0]), NCAffine(6)).double()
    with pytest.raises(RuntimeError, match='joined with another norm'):
        other(X)
    assert join_affines(other) == 1
    torch.testing.assert_close(other(X), split_copy(model)[0](X))


def test_an_affine_behind_a_joined_pair_is_no_error():
    model = nn.Sequential(*pair(), NCAffine(6, allow_plain=True)).double()
    model = nn.Sequential(model[:2], randomize(model[2]))
    expected = model(X)
    assert join_affines(model) == 1
    torch.testing.assert_close(model(X), expected)


def test_replicas_of_data_parallel_run_split():
    """nn.DataParallel on GPUs calls them; replicate() itself needs a GPU."""
    model = pair()
    expected = model(X)
    join_affines(model)
    conv, norm = (m._replicate_for_data_parallel() for m in model)
    for replica, source in ((conv, model[0]), (norm, model[1])):
        for name, parameter in source.named_parameters():
            setattr(replica, name, parameter.detach())
        replica.bias = getattr(source, 'bias', None)
    torch.testing.assert_close(norm(conv(X)), expected)
