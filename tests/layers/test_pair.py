"""An NC convolution and the NCAffine behind it: one operator, and nobody sees the difference."""

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

from nc_plugins.layers import NCAffine, NCConv1d, NCConv2d, NCConv3d, NCConvTranspose2d, half_swap
from nc_plugins.layers.pair import Pending
from nc_plugins.ops import aten

X = torch.randn(2, 4, 7, 6, dtype=torch.float64)


@pytest.fixture(autouse=True)
def no_watch_left():
    half_swap._watch.stop()
    yield
    half_swap._watch.stop()


@pytest.fixture
def calls(monkeypatch):
    """(bias, gain) of every call of the operator."""
    seen, run = [], aten.nc_conv

    def record(input, weight, bias, gain, *options):
        seen.append((bias, gain))
        return run(input, weight, bias, gain, *options)

    monkeypatch.setattr(aten, 'nc_conv', record)
    return seen


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


def test_hooks_on_the_convolution_see_its_output(calls):
    model = pair()
    raw = apart(model)[0](X)
    seen = []
    handle = model[0].register_forward_hook(lambda m, args, out: seen.append(out))
    ours = gradients(model, X)
    handle.remove()
    assert type(seen[0]) is torch.Tensor
    assert_same(ours, gradients(apart(model), X))
    torch.testing.assert_close(seen[0], raw)
    calls.clear()
    model(X)
    assert len(calls) == 1 and calls[0][1] is model[1].weight  # one again


def test_hooks_on_the_norm_see_the_convolutions_output():
    model = pair()
    raw = apart(model)[0](X)
    seen = []
    model[1].register_forward_pre_hook(lambda m, args: seen.append(args[0] + 0))
    assert_all_agree(model)
    torch.testing.assert_close(seen[0], raw)


@pytest.mark.parametrize('which', [0, 1])
@pytest.mark.parametrize('hook', ['register_full_backward_hook', 'register_full_backward_pre_hook'])
def test_backward_hooks(which, hook):
    model = pair()
    results = []
    for one in (model, apart(model)):
        seen = []
        getattr(one[which], hook)(lambda m, *g, seen=seen: seen.extend(g))
        results.append((gradients(one, X), seen))
    (ours, seen), (theirs, expected) = results
    assert_same(ours, theirs)
    assert seen
    torch.testing.assert_close(seen, expected)


def test_gradients_between_the_two():
    model = pair()
    results = []
    for conv, norm in (model, apart(model)):
        out = conv(X)
        hooked = []
        out.register_hook(hooked.append)
        out.retain_grad()
        norm(out).square().sum().backward(retain_graph=True)
        results.append((hooked[0], out.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
    model, results = pair(), []
    for conv, norm in (model, apart(model)):
        out = conv(X)
        y = norm(out + 0).square().sum()
        results.append(torch.autograd.grad(y, out))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(
    'ask',
    [
        lambda out, y: out.register_hook(print),
        lambda out, y: out.retain_grad(),
        lambda out, y: torch.autograd.grad(y.sum(), out),
        lambda out, y: out.grad_fn,
        lambda out, y: (y.sum().backward(inputs=[out]), out.grad),
    ],
)
def test_who_asks_for_those_gradients_too_late_is_told(ask):
    conv, norm = pair()
    out = conv(X)
    y = norm(out)
    with pytest.raises(RuntimeError, match=r'NCConv2d and .* before NCAffine is called'):
        ask(out, y)
    out = conv(X)  # and is served from then on
    y = norm(out)
    if ask.__code__.co_names[0] != 'register_hook':
        ask(out, y)


READERS = {
    'reads after the norm': lambda conv, norm, other, x: norm(out := conv(x)) + out.relu(),
    'reads before the norm': lambda conv, norm, other, x: (out := conv(x)).relu() + norm(out),
    'two norms': lambda conv, norm, other, x: norm(out := conv(x)) * other(out),
    'the same norm twice': lambda conv, norm, other, x: norm(out := conv(x)) * norm(out),
    'two calls, two norms': lambda conv, norm, other, x: norm(conv(x)) * other(conv(2 * x)),
    'two calls, one norm': lambda conv, norm, other, x: norm(conv(x)) * norm(conv(2 * x)),
    'read late': lambda conv, norm, other, x: norm(a := conv(x)) * norm(b := conv(2 * x)) + a * b,
    'changed in place': lambda conv, norm, other, x: norm(conv(x).mul_(2)),
    'changed and kept': lambda conv, norm, other, x: (out := conv(x)).mul_(2) * norm(out),
    'a view is changed': lambda conv, norm, other, x: (out := conv(x))[0].mul_(2).sum() + norm(out),
    'no norm': lambda conv, norm, other, x: conv(x).relu(),
    'part of it': lambda conv, norm, other, x: norm(conv(x)[:1]),
    'in a list': lambda conv, norm, other, x: norm(torch.cat([conv(x), conv(2 * x)])),
    'another convolution': lambda conv, norm, other, x: norm(conv(conv(x)[:, :4])),
    'norm of a norm': lambda conv, norm, other, x: other(norm(conv(x))),
}


@pytest.mark.parametrize('how', READERS)
@pytest.mark.parametrize('met', [True, False])
def test_other_readers(how, met):
    """Whether or not the two have met as a pair before."""
    conv = pair(backend='reference')[0]  # whose output may be changed in place
    conv.habit.learned = met or None
    norms = [norm_like(conv, allow_plain=True) for _ in range(2)]
    model = nn.ModuleList([conv, *norms])
    for _ in range(3):
        ours = gradients(model, X, lambda x: READERS[how](*model, x))
        other = apart(model)
        theirs = gradients(other, X, lambda x, other=other: READERS[how](*other, x))
        assert_same(ours, theirs)


def test_shared_modules_stay_pairs_and_second_readers_end_them(calls):
    conv, norm = pair()
    other = norm_like(conv)
    calls.clear()
    norm(conv(X)), other(conv(X))
    assert [gain for _, gain in calls] == [norm.weight, other.weight]
    for count in (2, 1, 1):  # the convolution runs twice the first time, never again
        calls.clear()
        out = conv(X)
        norm(out) + out
        assert len(calls) == count
    assert type(conv(X)) is torch.Tensor


@pytest.mark.parametrize('name', ['input', 'weight', 'bias'])
def test_changes_between_the_two_are_loud(name):
    model = pair(bias=True)
    x = X.clone()
    with torch.no_grad():
        for read in (model[1], torch.relu):
            out = model[0](x)
            {'input': x, 'weight': model[0].weight, 'bias': model[0].bias}[name].add_(1)
            with pytest.raises(RuntimeError, match=rf'NCConv2d\(4, 6\): {name} was changed in pl'):
                read(out)


def test_exchanged_memory_of_the_weight_is_loud():
    conv, norm = pair()
    out = conv(X)
    conv.weight.data = conv.weight.data.clone()
    with pytest.raises(RuntimeError, match='weight was changed'):
        norm(out)


@pytest.mark.parametrize('write', ['detached', 'no_grad'])
def test_the_same_norm_again_sees_what_was_written_in_between(write):
    conv, norm = pair()
    out = conv(X)
    norm(out)
    with torch.no_grad():
        (out.detach() if write == 'detached' else out).zero_()
    expected = norm.bias.view(1, -1, 1, 1).expand(out.shape)
    torch.testing.assert_close(norm(out), expected)


def test_exchanged_memory_of_the_output_is_refused():
    out = pair()[0](X)
    with pytest.raises(RuntimeError, match='give it a clone'):
        out.data = torch.zeros(2, 6, 5, 4)


class Twice(torch.autograd.Function):
    """C++ hands over what it gets, without asking __torch_function__."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * 2 * x


class Dirty(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(3)

    @staticmethod
    def backward(ctx, grad):
        return grad * 3


FUNCTIONS = {
    'function': lambda conv, norm, x: Twice.apply(conv(x)),
    'and norm': lambda conv, norm, x: norm(out := conv(x)) + Twice.apply(out),
    'before norm': lambda conv, norm, x: Twice.apply(out := conv(x)) + norm(out),
    'in place': lambda conv, norm, x: norm(Dirty.apply(conv(x))),
    'after a change': lambda conv, norm, x: Twice.apply(conv(x).mul_(2)),
    'changed twice': lambda conv, norm, x: Dirty.apply((out := conv(x)).mul_(2)) + norm(out),
}


@pytest.mark.parametrize('how', FUNCTIONS)
@pytest.mark.parametrize('grad', [True, False])
def test_functions_in_python_that_cpp_calls(how, grad):
    model = pair(backend='reference')
    other = apart(model)
    if grad:
        ours = gradients(model, X, lambda x: FUNCTIONS[how](*model, x))
        assert_same(ours, gradients(other, X, lambda x: FUNCTIONS[how](*other, x)))
    else:
        with torch.no_grad():
            torch.testing.assert_close(FUNCTIONS[how](*model, X), FUNCTIONS[how](*other, X))


class Inner(torch.autograd.Function):
    """Runs a graph of its own in forward, as hand-made checkpoints do."""

    @staticmethod
    def forward(ctx, x, conv):
        with torch.enable_grad():
            return conv(x.detach())

    @staticmethod
    def backward(ctx, grad):
        return grad.sum() * torch.ones_like(X), None


def test_the_output_of_a_function_has_the_functions_history():
    model = pair()
    results = []
    for conv, norm in (model, apart(model)):
        x = X.clone().requires_grad_()
        y = norm(Inner.apply(x, conv))
        y.backward(torch.ones_like(y))
        results.append((y.detach(), x.grad, norm.weight.grad))
        assert conv.weight.grad is None
    torch.testing.assert_close(*results)


@torch.jit.script
def double_(x):
    return x.mul_(2)


@pytest.mark.parametrize('grad', [True, False])
def test_changed_in_place_by_cpp(grad):
    model = pair(backend='reference')
    results = []
    for conv, norm in (model, apart(model)):
        with torch.set_grad_enabled(grad):
            out = conv(X)
            double_(out)
            results.append(norm(out))
    torch.testing.assert_close(*results)


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


@pytest.mark.parametrize('memory', ['numpy', 'tolist', 'data_ptr', 'untyped_storage', '__repr__'])
def test_memory(memory):
    model = pair()
    with torch.no_grad():
        out, raw = model[0](X), apart(model)[0](X)
        got = getattr(out, memory)()
        if memory in ('numpy', 'tolist'):
            torch.testing.assert_close(torch.as_tensor(got, dtype=raw.dtype), raw)
        if memory == '__repr__':
            assert got == repr(raw)
        assert type(pickle.loads(pickle.dumps(out))) is torch.Tensor
        with pytest.raises(RuntimeError, match='Cannot access data pointer'):
            torch._C._to_dlpack(out)  # C++ that reads memory itself


@pytest.mark.parametrize(
    'question',
    [
        lambda t: (t.shape, t.size(1), t.dim(), t.numel(), len(t), t.dtype, t.device, t.layout),
        lambda t: (t.requires_grad, t.is_leaf, t.is_floating_point(), torch.is_tensor(t)),
        lambda t: (t.stride(), t.is_contiguous()),
    ],
)
def test_metadata_does_not_part_them(question, calls):
    for x in (X, X.contiguous(memory_format=torch.channels_last)):
        for grad in (True, False):
            model = pair(x=x)
            with torch.set_grad_enabled(grad):
                out = model[0](x)
                assert question(out) == question(apart(model)[0](x))
                calls.clear()
                model[1](out)
            assert len(calls) == 1 and calls[0][1] is model[1].weight


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
