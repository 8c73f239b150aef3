"""join_affines: one operator instead of two modules, with the same results."""

import copy
import io
import os
import pickle

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from nc_plugins.layers import (
    NCAffine,
    NCConv1d,
    NCConv2d,
    NCConv3d,
    NCConvTranspose2d,
    join_affines,
    split_affines,
)

from .models import X, assert_same, gradients, pair, split_copy

KINDS = {
    'plain': (NCConv2d, {}, X),
    'bias': (NCConv2d, {'bias': True, 'stride': 2, 'padding': 1}, X),
    'groups': (NCConv2d, {'groups': 2, 'dilation': 2}, X),
    'weight standardised': (NCConv2d, {'weight_standardize': True}, X),
    'reflect': (NCConv2d, {'padding': 1, 'padding_mode': 'reflect'}, X),
    'pointwise': (NCConv2d, {'kernel_size': 1}, X),
    'cpu': (NCConv2d, {'backend': 'cpu'}, X),
    'reference': (NCConv2d, {'backend': 'reference'}, X),
    'channels last': (NCConv2d, {}, X.contiguous(memory_format=torch.channels_last)),
    'empty batch': (NCConv2d, {}, X[:0]),
    '1d': (NCConv1d, {'bias': True}, X[..., 0]),
    '3d': (NCConv3d, {}, X[..., None].repeat(1, 1, 1, 1, 4).cumsum(4)),
    'transposed': (NCConvTranspose2d, {'stride': 2, 'bias': True}, X),
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
def test_joined_equals_split(kind, training):
    layer, options, x = KINDS[kind]
    model = pair(layer, **options).train(training)
    assert join_affines(model) == 1
    assert_same(gradients(model, x), gradients(split_copy(model), x))
    joined, split = model(x), split_copy(model)(x)
    assert joined.stride() == split.stride()


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
def test_the_operator_runs_once_with_the_parameters_of_the_norm(training, calls):
    model = pair().train(training)
    join_affines(model)
    model(X)
    assert len(calls) == 1
    bias, gain = calls[0]
    assert bias is model[1].bias and gain is model[1].weight


def test_joining_and_splitting_are_idempotent_and_move_nothing():
    model = nn.Sequential(pair(), nn.ReLU(), NCConv2d(6, 3, 1), NCAffine(3)).double()
    names = list(model.state_dict())
    identities = [id(p) for p in model.parameters()]
    modules = [name for name, _ in model.named_modules()]
    assert [join_affines(model), join_affines(model)] == [2, 2]
    assert list(model.state_dict()) == names
    assert [id(p) for p in model.parameters()] == identities
    assert [name for name, _ in model.named_modules()] == modules
    assert [split_affines(model), split_affines(model)] == [2, 0]
    assert join_affines(model) == 2


def test_a_pair_added_later_is_joined_later():
    model = nn.Sequential(pair())
    assert join_affines(model) == 1
    model.append(pair(layer=NCConv2d))
    assert join_affines(model) == 2


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize(('depth', 'pairs'), [(18, 15), (50, 43)])
def test_residual_network(depth, pairs, with_cp, calls):
    pytest.importorskip('mmpretrain')
    from mmpretrain.models.backbones import ResNet

    nc = {'type': 'NC'}
    model = ResNet(
        depth, base_channels=4, stem_channels=4, conv_cfg={**nc, 'backend': 'aten'}, norm_cfg=nc,
        with_cp=with_cp, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,),
    ).double()  # fmt: skip
    norms = [m for m in model.modules() if isinstance(m, NCAffine)]
    for norm in norms:
        nn.init.normal_(norm.weight)
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    assert join_affines(model) == len(norms) == pairs
    model(x)
    assert {id(gain) for _, gain in calls} == {id(norm.weight) for norm in norms}
    ours, theirs = (gradients(m, x, lambda x, m=m: m(x)[0]) for m in (model, split_copy(model)))
    assert_same(ours, theirs, 1e-9)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('joined', [True, False])
@pytest.mark.parametrize('backend', ['auto', 'aten', 'reference'])
def test_the_first_call_and_the_hundredth_give_the_same_bits(dtype, joined, backend):
    model = pair(padding=1, backend=backend).to(dtype)
    if joined:
        join_affines(model)
    x = X.to(dtype)
    for training in (True, False):
        model.train(training)
        first = gradients(model, x)
        for _ in range(98):
            with torch.no_grad():
                model(x)
        last = gradients(model, x)
        assert all(torch.equal(first[name], last[name]) for name in first)


@pytest.mark.parametrize('joined', [True, False])
def test_gain_and_bias_stay_in_float32_under_autocast(joined):
    """Bit for bit. The gain is no bfloat16 number, so rounding it would show."""
    model = pair(kernel_size=1, backend='cpu').float()
    nn.init.constant_(model[1].weight, 1 + 2**-9)
    x = X.float()
    convolution, norm = model
    with torch.autocast('cpu', torch.bfloat16):
        between = convolution(x)
    if joined:  # the "cpu" backend computes in float32 and rounds its output once
        expected = model(x)
        join_affines(model)
    else:
        expected = torch.addcmul(norm.bias.view(-1, 1, 1), between.float(), norm.weight[0])
    with torch.autocast('cpu', torch.bfloat16):
        out = model(x)
    assert torch.equal(out, expected.bfloat16())
    rounded = copy.deepcopy(model)
    nn.init.constant_(rounded[1].weight, 1)
    with torch.autocast('cpu', torch.bfloat16):
        assert not torch.equal(out, rounded(x))
    out.float().square().sum().backward()
    assert model[1].weight.grad.dtype == torch.float32


@pytest.mark.parametrize('backend', ['aten', 'cpu'])
@pytest.mark.parametrize('size', [0, 1e-9, 1e-6, 1e-4, 0.009, 0.011, 1])
def test_gradient_of_a_small_gain_in_half_precision(backend, size):
    """As after the first step of a gain that started at zero."""
    model = pair(backend=backend, kernel_size=3).float()
    nn.init.constant_(model[1].weight, size)
    join_affines(model)
    results = []
    for dtype in (torch.float32, torch.float16):
        model.zero_grad()
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            model(X.float()).float().sum().backward()
        results.append(model[1].weight.grad.clone())
    torch.testing.assert_close(*results, rtol=0.02, atol=0.05)


def test_a_norm_in_float32_behind_a_convolution_in_half_precision():
    model = pair()
    model[0].bfloat16()
    model[1].float()
    expected = model(X.bfloat16())
    join_affines(model)
    out = model(X.bfloat16())
    assert out.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected, rtol=0.05, atol=0.05)
    out.sum().backward()
    assert model[1].weight.grad.dtype == torch.float32


def saved_whole(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), saved_whole]
)
def test_copies_are_joined_within_themselves(copied):
    model = pair()
    join_affines(model)
    other = copied(model)
    assert_same(gradients(other, X), gradients(model, X))
    with torch.no_grad():
        other[1].weight.mul_(2)  # reaches the copy's convolution, not the model's
    assert not torch.equal(other(X), model(X))
    assert split_affines(other) == 1
    model(X)


def test_an_averaged_model():
    model = pair()
    join_affines(model)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    model[0].weight.data.mul_(2)
    for _ in range(2):
        average.update_parameters(model)
    with torch.no_grad():
        torch.testing.assert_close(average(X), split_copy(average.module)(X))


@pytest.mark.parametrize('reentrant', [True, False], ids=['reentrant', 'hooks'])
def test_checkpoints(reentrant):
    model = pair()
    expected = gradients(model, X)
    join_affines(model)

    def forward(x):
        return checkpoint(model, x, use_reentrant=reentrant)

    assert_same(gradients(model, X, forward), expected)


def test_second_derivatives():
    model = pair()
    join_affines(model)
    x = X[:1, :, :4, :4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w, b: model(x), (x, model[1].weight, model[1].bias))
    assert torch.autograd.gradgradcheck(lambda x, w: model(x), (x, model[1].weight), atol=1e-4)


@pytest.fixture
def one_process():
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('options', [{}, {'find_unused_parameters': True}, {'static_graph': True}])
def test_distributed_data_parallel(one_process, options):
    model = nn.Sequential(*pair(), nn.ReLU(), nn.Conv2d(6, 2, 1)).double()
    other = copy.deepcopy(model)
    join_affines(model)
    parallel = DistributedDataParallel(model, **options)
    for _ in range(3):
        parallel.zero_grad()
        assert_same(gradients(model, X, parallel), gradients(other, X))
        for one in (model, other):
            torch.optim.SGD(one.parameters(), 1e-3).step()
    assert join_affines(parallel) == 1
