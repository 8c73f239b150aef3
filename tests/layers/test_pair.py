"""An NC convolution and the NCAffine behind it: one operator, with the results of two."""

import copy
import gc
import os
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from nc_plugins.layers import NCAffine, NCConv1d, NCConv2d, NCConv3d, NCConvTranspose2d
from nc_plugins.layers.pair import Pending

from .pairs import X, apart, assert_all_agree, assert_same, gradients, norm_like, pair

KINDS = {
    'plain': (NCConv2d, {}, X),
    'bias': (NCConv2d, {'bias': True, 'stride': 2, 'padding': 1}, X),
    'groups': (NCConv2d, {'groups': 2, 'dilation': 2}, X),
    'own affine': (NCConv2d, {'affine': True}, X),
    'weight standardised': (NCConv2d, {'weight_standardize': True}, X),
    'reflect': (NCConv2d, {'padding': 1, 'padding_mode': 'reflect'}, X),
    'pointwise': (NCConv2d, {'kernel_size': 1}, X),
    'any backend': (NCConv2d, {'backend': 'auto'}, X),
    'channels last': (NCConv2d, {}, X.contiguous(memory_format=torch.channels_last)),
    'empty batch': (NCConv2d, {}, X[:0]),
    '1d': (NCConv1d, {'bias': True}, X[..., 0]),
    '3d': (NCConv3d, {}, X[..., None].repeat(1, 1, 1, 1, 4).cumsum(4)),
    'transposed': (NCConvTranspose2d, {'stride': 2, 'bias': True}, X),
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
def test_output_and_gradients_are_those_of_the_two(kind, training):
    layer, options, x = KINDS[kind]
    model = pair(layer, x, **options).train(training)
    assert type(model[0](x)) is Pending
    assert_all_agree(model, x)
    with torch.no_grad():
        together, one_by_one = model(x), apart(model)(x)
        torch.testing.assert_close(together, one_by_one, rtol=1e-10, atol=1e-10)
        assert together.stride() == one_by_one.stride()


@pytest.mark.parametrize('grad', [True, False])
@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
def test_the_operator_runs_once_with_the_norms_parameters(grad, training, calls):
    model = pair().train(training)
    calls.clear()
    with torch.set_grad_enabled(grad):
        model(X)
    assert len(calls) == 1
    bias, gain = calls[0]
    assert bias is model[1].bias and gain is model[1].weight


class Work(TorchDispatchMode):
    """Operators that write as much as the output, views excepted."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.numel() >= 2 * 6 * 5 * 4 and not func.is_view:
            self.done.append(str(func))
        return out


def test_costs_what_the_layer_with_its_own_affine_costs():
    model = pair()
    own = NCConv2d(4, 6, 3, affine=True, backend='aten', dtype=torch.float64)
    work, saved = [], []
    for run in (model, own, apart(model)):
        sizes = []

        def note(t, sizes=sizes):
            sizes.append(t.numel())
            return t

        x = X.clone().requires_grad_()
        with Work() as mode, torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            run(x).backward(torch.ones(2, 6, 5, 4, dtype=torch.float64))
        work.append(mode.done)
        saved.append(sizes)
    assert work[0] == work[1] and saved[0] == saved[1]
    assert len(work[2]) > len(work[0]) and sum(saved[2]) > sum(saved[0])


def test_the_input_is_let_go():
    model = pair()
    with torch.no_grad():
        x = X.clone()
        gone = weakref.ref(x)
        out = model(x)
        del x
    gc.collect()
    assert gone() is None and out is not None


def test_state_dict_copies_pickles_and_averages():
    model = pair()
    names = list(model.state_dict())
    assert names == ['0.weight', '1.weight', '1.bias']
    average = AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), average.module):
        assert list(other.state_dict()) == names
        assert_same(gradients(other, X), gradients(model, X))
    model[0].weight.data.mul_(2)
    with torch.no_grad():
        before = model(X)
    average.update_parameters(model)
    average.update_parameters(model)
    with torch.no_grad():
        expected = apart(average.module)(X)
        torch.testing.assert_close(average(X), expected)
        torch.testing.assert_close(model(X), before)


SEGMENTS = {
    'both': lambda run, conv, norm, x: run(lambda x: norm(conv(x)), x),
    'convolution': lambda run, conv, norm, x: norm(run(conv, x)),
    'norm': lambda run, conv, norm, x: run(norm, conv(x)),
    'one each': lambda run, conv, norm, x: run(norm, run(conv, x)),
    'norm and more': lambda run, conv, norm, x: run(lambda t: norm(t) + t, conv(x)),
    'crossed': lambda run, conv, norm, x: norm(run(lambda t: norm(t) + t, conv(x)) + conv(x)),
}


@pytest.mark.parametrize('segments', SEGMENTS)
@pytest.mark.parametrize('reentrant', [True, False], ids=['reentrant', 'hooks'])
@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
def test_checkpoints(segments, reentrant, training):
    """From the first forward on, through what is learned between iterations."""
    conv = NCConv2d(4, 6, 3, padding=1, bias=False, dtype=torch.float64)
    model = nn.ModuleList([conv, norm_like(conv, allow_plain=True)]).train(training)
    other = apart(model)
    for _ in range(4):

        def forward(x, run, model=None):
            return SEGMENTS[segments](run, *model, x).relu()

        def kept(function, x):
            return checkpoint(function, x, use_reentrant=reentrant)

        ours = gradients(model, X, lambda x: forward(x, kept, model))
        theirs = gradients(other, X, lambda x: forward(x, lambda f, x: f(x), other))
        assert_same(ours, theirs)
        for one in (model, other):
            torch.optim.SGD(one.parameters(), 0.01).step()


def test_a_checkpointed_pair_runs_as_one_after_the_first_update(calls):
    conv = NCConv2d(4, 6, 3, bias=False, backend='aten', dtype=torch.float64)
    model = nn.Sequential(conv, norm_like(conv))
    gains = []
    for _ in range(3):
        calls.clear()
        gradients(model, X, lambda x: checkpoint(model, x, use_reentrant=False))
        gains.append([gain is model[1].weight for _, gain in calls])
        torch.optim.SGD(model.parameters(), 0.01).step()
    # Learned in the first forward, which must run the same again in the first backward.
    assert gains == [[False, False], [True, True], [True, True]]


def test_a_forward_in_between_changes_nothing_for_a_pending_checkpoint():
    conv = NCConv2d(4, 6, 3, bias=False, dtype=torch.float64)
    model = nn.Sequential(conv, norm_like(conv))

    def forward(x):
        out = checkpoint(model, x, use_reentrant=False)
        with torch.no_grad():
            model(X)
        return out

    assert_all_agree(model, X, forward)


def test_memory_formats_agree_when_the_operator_chooses_another():
    model = pair().to(memory_format=torch.channels_last)
    results = []
    for conv in (model[0], apart(model)[0]):
        x = X.clone().requires_grad_()
        out = conv(x)
        strides = out.stride()
        out[0, 1].mul_(2)
        assert (out + 0)[0].shape == out[0].shape and out.stride() == strides
        assert type(out) is not Pending or out.tensor().stride() == strides
        results.append(out.detach())
    torch.testing.assert_close(*results)


def test_a_chain_of_convolutions(calls):
    first = pair()[0]
    second = NCConv2d(6, 6, 1, bias=False, backend='aten', dtype=torch.float64)
    second.habit.learned = True
    norm = norm_like(second)
    calls.clear()
    norm(second(first(X)))
    assert [gain for _, gain in calls] == [None, norm.weight]


def test_second_derivatives():
    model = pair()
    conv, norm = model
    x = X[:1, :, :4, :4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w, b: model(x), (x, norm.weight, norm.bias))
    assert torch.autograd.gradgradcheck(lambda x, w: model(x), (x, norm.weight), atol=1e-4)

    def read_by_others(x):
        conv.habit.learned = True  # not yet off for good
        out = conv(x)
        assert type(out) is Pending
        return out.tanh()

    assert torch.autograd.gradcheck(read_by_others, (x,))
    assert torch.autograd.gradgradcheck(read_by_others, (x,), atol=1e-4)


def test_grad_mode_and_autocast_are_those_of_each_call():
    model = pair()
    conv, norm = model
    out = conv(X)
    with torch.no_grad():
        assert not norm(out).requires_grad
    with torch.no_grad():
        out = conv(X)
    y = norm(out)
    y.sum().backward()
    assert conv.weight.grad is None and norm.weight.grad is not None

    model = pair().float()
    x = X.float()
    for other in (model, apart(model)):
        conv, norm = other
        with torch.autocast('cpu', torch.bfloat16):
            out = conv(x)
        assert out.dtype == norm(out).dtype == torch.bfloat16


def test_autocast(calls):
    model = pair().float()
    x = X.float()
    calls.clear()
    with torch.autocast('cpu', torch.bfloat16):
        y = model(x)
    assert len(calls) == 1 and calls[0][1] is model[1].weight
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), model(x), rtol=0.05, atol=0.05)
    y.float().square().sum().backward()
    assert model[1].weight.grad.dtype == torch.float32 and model[0].weight.grad.abs().max() > 0


def test_a_norm_of_another_dtype(calls):
    model = pair()
    model[0].bfloat16()
    model[1].float()
    x = X.bfloat16()
    calls.clear()
    y = model(x)
    assert [gain.dtype for _, gain in calls] == [torch.bfloat16]  # what the backends take
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, apart(model)(x), rtol=0.05, atol=0.05)
    y.sum().backward()
    assert model[1].weight.grad.dtype == torch.float32


def test_inference_mode():
    """A change in place of an inference tensor leaves no trace, so the two run one by one."""
    model = pair()
    with torch.inference_mode():
        assert type(model[0](X)) is torch.Tensor
        expected = apart(model)(X)
        torch.testing.assert_close(model(X), expected)
    with torch.no_grad():
        out = model[0](X)
    with torch.inference_mode():
        torch.testing.assert_close(model[1](out), expected)
        torch.testing.assert_close(model[1](model[0](X.clone())), expected)


def test_traced_exported_and_transformed():
    model = pair()
    expected = apart(model)(X)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.trace(model, X)(X), expected)
    exported = torch.export.export(model, (X,)).module()
    torch.testing.assert_close(exported(X), expected)
    parameters = dict(model.named_parameters())
    called = torch.func.functional_call(model, parameters, (X,))
    torch.testing.assert_close(called, expected)
    torch.testing.assert_close(torch.vmap(model[1])(model[0](X)[None])[0], expected)


def test_a_norm_compiled_by_itself():
    model = pair()
    compiled = torch.compile(model[1], backend='aot_eager')  # breaks the graph: not its kind
    assert_same(gradients(model, X, lambda x: compiled(model[0](x))), gradients(apart(model), X))


@pytest.fixture
def one_process():
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('options', [{}, {'find_unused_parameters': True}, {'static_graph': True}])
def test_data_parallel(one_process, options):
    conv = NCConv2d(4, 6, 3, dtype=torch.float64)
    model = nn.Sequential(conv, norm_like(conv), nn.ReLU(), nn.Conv2d(6, 2, 1).double())
    other = apart(model)
    parallel = DistributedDataParallel(model, **options)
    for _ in range(3):
        parallel.zero_grad()
        other.zero_grad()
        ours, theirs = parallel(X).square().sum(), other(X).square().sum()
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        ours.backward()
        theirs.backward()
        for one in (model, other):
            torch.optim.SGD(one.parameters(), 1e-3).step()
    assert type(conv(X)) is Pending
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


def test_conv_module(calls):
    pytest.importorskip('mmcv')
    from mmcv.cnn import ConvModule

    import nc_plugins  # noqa: F401  registers

    nc = {'type': 'NC'}
    model = ConvModule(4, 6, 3, conv_cfg={**nc, 'backend': 'aten'}, norm_cfg=nc).double()
    nn.init.normal_(model.norm.weight)
    model(X)
    assert_all_agree(model)
    calls.clear()
    model(X)
    assert [gain for _, gain in calls] == [model.norm.weight]


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('depth', [18, 50])
def test_residual_network(depth, with_cp, calls):
    pytest.importorskip('mmpretrain')
    from mmpretrain.models.backbones import ResNet

    nc = {'type': 'NC'}
    model = ResNet(
        depth, base_channels=4, stem_channels=4, conv_cfg={**nc, 'backend': 'aten'}, norm_cfg=nc,
        with_cp=with_cp, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,),
    ).double()  # fmt: skip
    norms = [m for m in model.modules() if isinstance(m, NCAffine)]
    for norm in norms:
        nn.init.normal_(norm.weight)
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    model(x)
    calls.clear()
    with torch.no_grad():
        model(x)
    assert {id(gain) for _, gain in calls} == {id(norm.weight) for norm in norms}
    assert_all_agree(model, x, lambda x: model(x)[0])
