"""Whoever reads between an NC convolution and its NCAffine sees what two modules would show."""

import pickle

import pytest
import torch
from torch import nn

from .pairs import X, apart, assert_all_agree, assert_same, gradients, norm_like, pair


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
