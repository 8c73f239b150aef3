"""Behaviour of the Triton backend: autograd, layouts, torch.compile, refused arguments.

test_triton.py runs this file; see triton_cases.py.
"""

import pytest
import torch

from nc_plugins import ops
from nc_plugins.ops import dispatch, reference
from nc_plugins.ops import triton as backend
from nc_plugins.ops.arguments import make_geometry
from nc_plugins.ops.backend import fold

from .cases import run, tensors
from .triton_cases import (  # the last two are fixtures
    DEVICE,
    FORMATS,
    PLANE,
    actual,
    cotangent,
    full_precision,  # noqa: F401
    round_as_a_gpu,  # noqa: F401
)


def geometry_of(x, weight, stride=1, padding=0, dilation=1, groups=1):
    steps = (stride, padding, dilation, groups)
    return make_geometry('nc_conv2d', 2, x.shape, weight.shape, None, None, *steps)


@pytest.mark.parametrize('center', [True, False])
@pytest.mark.parametrize('case', [PLANE[0], PLANE[1], PLANE[2]], ids=str)
def test_a_folded_weight_gives_the_same(case, center):
    """As a deployed layer calls it: the folded weight, without the gain."""
    x, weight, bias, gain = (t.float().to(DEVICE) for t in tensors(case))
    options = {'center': center, 'backend': 'triton'}
    expected = ops.nc_conv2d(x, weight, bias, gain=gain, **case.options, **options)
    folded = fold(weight, gain, geometry_of(x, weight, **case.options), center)
    steps = {'stride': 1, 'padding': 0, 'dilation': 1, 'groups': 1} | case.options
    result = dispatch.normalized_convolution(
        'nc_conv2d', 2, x, folded.weight, bias, None, **steps, output_padding=None, eps=1e-5,
        scale=True, folded=folded, **options,
    )  # fmt: skip
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize('case', [PLANE[0], PLANE[1]], ids=str)
def test_results_are_deterministic(case):
    given = [t.float() for t in tensors(case)]
    for first, second in zip(actual(case, given), actual(case, given), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize('case', [PLANE[0], PLANE[1], PLANE[7]], ids=str)
def test_empty_batch(case):
    out, *grads = actual(case, [t.float() for t in tensors(case, batch=0)])
    assert out.shape[:2] == (0, case.channels[1])
    assert grads[0].shape[0] == 0
    assert all((grad == 0).all() for grad in grads[1:])


@pytest.mark.parametrize('case', [PLANE[0], PLANE[1], PLANE[4], PLANE[10]], ids=str)
def test_memory_format_is_kept(case):
    x, weight, *_ = (t.float().to(DEVICE) for t in tensors(case))
    for layout in FORMATS:
        for other in FORMATS:
            arranged = x.to(memory_format=layout).requires_grad_()
            filters = weight.to(memory_format=other).requires_grad_()
            out = ops.nc_conv2d(arranged, filters, **case.options, backend='triton')
            grads = torch.autograd.grad(out, (arranged, filters), torch.randn_like(out))
            if case.channels[0] > 1:  # else the input has both formats
                assert out.is_contiguous(memory_format=layout)
            assert grads[0].is_contiguous(memory_format=layout)
            assert grads[1].is_contiguous(memory_format=other)


@pytest.mark.parametrize('case', [PLANE[0], PLANE[1]], ids=str)
def test_strided_tensors(case):
    x, weight, bias, gain = (t.float().to(DEVICE) for t in tensors(case))
    wide = torch.zeros(*x.shape[:3], x.shape[3] * 2, device=DEVICE)
    wide[..., ::2] = x
    turned = weight.transpose(2, 3).contiguous().transpose(2, 3)
    vectors = torch.stack((bias, gain), 1).unbind(1)
    results = []
    for given in ((x, weight, bias, gain), (wide[..., ::2], turned, *vectors)):
        leaves = [t.detach().requires_grad_() for t in given]
        out = ops.nc_conv2d(*leaves[:3], gain=leaves[3], **case.options, backend='triton')
        back = cotangent(()).to(DEVICE).expand_as(out)  # all strides are 0
        results.append((out, *torch.autograd.grad(out, leaves, back)))
    for a, e in zip(*reversed(results), strict=True):
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize('case', [PLANE[0], PLANE[1]], ids=str)
def test_only_requested_gradients(case):
    given = [t.float().to(DEVICE) for t in tensors(case)]
    given[3][0] = 0
    truth = run('reference', case, [t.cpu().double() for t in given])
    for wanted in range(4):
        leaves = [t.clone().requires_grad_(i == wanted) for i, t in enumerate(given)]
        out = ops.nc_conv2d(*leaves[:3], gain=leaves[3], **case.options, backend='triton')
        (grad,) = torch.autograd.grad(out, leaves[wanted], cotangent(out.shape).to(DEVICE))
        expected = truth[1 + wanted].float()
        torch.testing.assert_close(grad.cpu(), expected, rtol=1e-5, atol=2e-5)
    x, weight, *_ = (t.requires_grad_() for t in given)
    out = ops.nc_conv2d(x, weight, **case.options, backend='triton')  # neither bias nor gain
    plain = reference.nc_conv2d(x.cpu(), weight.cpu(), **case.options)
    back = cotangent(out.shape)
    grads = torch.autograd.grad(out, (x, weight), back.to(DEVICE))
    for a, e in zip(grads, torch.autograd.grad(plain, (x, weight), back), strict=True):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize('kernel', [1, 3])
@pytest.mark.parametrize('with_bias', [False, True])
def test_saves_input_weight_output_and_two_maps(kernel, with_bias):
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.randn(2, 16, 12, 12, device=DEVICE, requires_grad=True)
    weight = torch.randn(16, 16, kernel, kernel, device=DEVICE, requires_grad=True)
    gain, bias = (torch.randn(16, device=DEVICE, requires_grad=True) for _ in range(2))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = ops.nc_conv2d(
            x, weight, bias if with_bias else None, gain=gain, padding=kernel // 2, backend='triton'
        )
    assert out.requires_grad
    maps = 2 * 2 * 12 * 12
    wanted = x.numel() + weight.numel() + gain.numel() + out.numel() + maps
    assert sum(storages.values()) == 4 * wanted


@pytest.mark.parametrize('kernel', [1, 3])
def test_in_place_change_of_a_saved_output_raises(kernel):
    x = torch.randn(2, 6, 5, 5, device=DEVICE, requires_grad=True)
    weight = torch.randn(8, 6, kernel, kernel, device=DEVICE, requires_grad=True)
    out = ops.nc_conv2d(x, weight, backend='triton')
    back = torch.randn_like(out)
    out.relu_()
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        out.backward(back)
    bias = torch.zeros(8, device=DEVICE)
    ops.nc_conv2d(x, weight, bias, backend='triton').relu_().backward(back)


def test_second_derivatives():
    case = PLANE[0]

    def second(chosen, device):
        given = [t.float().to(device).requires_grad_() for t in tensors(case)]
        x, weight, bias, gain = given
        out = ops.nc_conv2d(x, weight, bias, gain=gain, padding=1, eps=0.1, backend=chosen)
        back = cotangent(out.shape).to(device).requires_grad_()
        grads = torch.autograd.grad(out, given, back, create_graph=True)
        penalty = sum(grad.square().sum() for grad in grads)
        return torch.autograd.grad(penalty, (x, weight, gain, back))

    for a, e in zip(second('triton', DEVICE), second('reference', 'cpu'), strict=True):
        torch.testing.assert_close(a.cpu(), e, rtol=1e-4, atol=1e-4 * float(e.abs().max()))


@pytest.mark.parametrize(('case', 'format'), list(zip(PLANE[:2], FORMATS, strict=True)), ids=str)
def test_compiles_whole_and_exports(case, format):
    x, weight, bias, gain = (t.float().to(DEVICE) for t in tensors(case))

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(weight)

        def forward(self, x):
            return ops.nc_conv2d(
                x, self.weight, bias, gain=gain, **case.options, backend='triton'
            ).relu()

    model = Model()
    x.requires_grad_()
    given = x.contiguous(memory_format=format)
    expected = model(given)
    result = torch.compile(model, backend='aot_eager', fullgraph=True)(given)
    back = torch.randn_like(expected)
    leaves = (x, model.weight)
    for a, e in zip(
        (result, *torch.autograd.grad(result, leaves, back)),
        (expected, *torch.autograd.grad(expected, leaves, back)),
        strict=True,
    ):
        torch.testing.assert_close(a, e)
        assert a.stride() == e.stride()
    with torch.no_grad():
        exported = torch.export.export(model, (x,))
        torch.testing.assert_close(exported.module()(x), model(x))


@pytest.mark.parametrize(
    ('kernel', 'keep_y', 'format'),
    [(1, True, FORMATS[0]), (1, False, FORMATS[1]), (3, False, FORMATS[0]), (3, True, FORMATS[1])],
)
def test_custom_operators_pass_opcheck(kernel, keep_y, format):
    """Schema, aliasing, and shapes and strides of fake tensors."""
    x = torch.randn(2, 6, 5, 7, device=DEVICE).to(memory_format=format)
    weight = torch.randn(8, 6, kernel, kernel, device=DEVICE)
    bias, gain = torch.randn(2, 8, device=DEVICE).unbind()
    packed = backend._pack(geometry_of(x, weight, 2, kernel // 2))
    utilities = ('test_schema', 'test_faketensor')
    arguments = (x, weight, bias, gain, packed, 1e-5, torch.float32, keep_y)
    torch.library.opcheck(backend._forward, arguments, test_utils=utilities)
    out, y, mean, rstd = backend._forward(*arguments)
    arguments = (
        torch.randn_like(out), x, weight, gain, y if keep_y else out, mean, rstd, packed,
        torch.float32, True, keep_y,
    )  # fmt: skip
    torch.library.opcheck(backend._backward, arguments, test_utils=utilities)


def test_auto_takes_another_backend_for_refused_arguments():
    x, weight = torch.zeros(2, 4, 9, 9, device=DEVICE), torch.zeros(8, 4, 3, 3, device=DEVICE)
    large = torch.zeros(8, 4, 9, 9, device=DEVICE)
    ordinary = 'only 2-d convolutions that are not transposed'
    for call, given, match in (
        (ops.nc_conv1d, (x[..., 0], weight[..., 0]), ordinary),
        (ops.nc_conv3d, (x[:, :, None], weight[:, :, None]), ordinary),
        (ops.nc_conv_transpose2d, (x, weight[:4]), ordinary),
        (ops.nc_conv2d, (x.double(), weight.double()), 'input is torch.float64'),
        (ops.nc_conv2d, (x, large), 'the kernel has 81 taps, wanted at most 64'),
        (ops.nc_conv2d, (x.to('meta'), weight.to('meta')), 'input is on meta, wanted cuda'),
    ):
        with pytest.raises(ValueError, match=f"backend 'triton' cannot run here: .*{match}"):
            call(*given, backend='triton')
        assert call(*given).numel() > 0


@pytest.mark.parametrize(('channels', 'outputs'), [(8, 1), (2, 8)])
def test_samples_beyond_32_bit_offsets_are_refused(channels, outputs):
    """The input or the output has 2**31 values per sample. No memory is allocated."""
    zero = torch.zeros(1, device=DEVICE)
    x, weight = zero.expand(1, channels, 2**14, 2**14), zero.expand(outputs, channels, 1, 1)
    assert '2**31' in backend.refuses(x, weight, geometry_of(x, weight))
    half, geometry = x[..., : 2**13], geometry_of(x, weight)
    assert backend.refuses(half, weight, geometry) is None


def test_auto_does_not_take_the_interpreter():
    x, weight = torch.zeros(2, 4, 9, 9, device=DEVICE), torch.zeros(8, 4, 3, 3, device=DEVICE)
    chosen = dispatch.choose_backend('auto', x, weight, geometry_of(x, weight))
    assert (chosen == 'triton') == (not backend.INTERPRETED)
    assert 'triton' in ops.available_backends()
