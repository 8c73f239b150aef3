"""The tests of the Triton backend; test_triton.py runs them in a process of their own.

On a CUDA device where there is one, else in Triton's interpreter, which wants TRITON_INTERPRET=1
before the first import. Float64 being refused, every result is compared in float32 or half
precision with the definition in float64, by the tolerances of test_accuracy.py.
"""

import pytest
import torch
import torch.nn.functional as F

from nc_plugins import ops
from nc_plugins.ops import nc_conv, reference
from nc_plugins.ops import triton as backend

from . import test_photographs as photographs
from .cases import CASES, NAMES, Case, run, tensors
from .test_accuracy import FLOOR, TOLERANCE

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
FORMATS = [torch.contiguous_format, torch.channels_last]
HALF = [torch.bfloat16, torch.float16]
STEPS = {'stride': 1, 'padding': 0, 'dilation': 1, 'groups': 1}
PLANE = [case for case in CASES if case.operator == 'nc_conv2d']
# Of the kinds in test_accuracy.py, with fewer filters: interpreting takes milliseconds a program.
WIDE = [
    Case('nc_conv2d', (64, 8), (7, 7), (1, 1), {}),
    Case('nc_conv2d', (32, 8), (8, 8), (3, 3), {'padding': 1}),
    Case('nc_conv2d', (3, 8), (16, 16), (7, 7), {'stride': 2, 'padding': 3}),
    Case('nc_conv2d', (32, 8), (8, 8), (3, 3), {'padding': 2, 'dilation': 2, 'groups': 2}),
]
# Where kernels take more than one block: of input and of output channels, in either format.
BLOCKS = [
    Case('nc_conv2d', (70, 66), (3, 4), (1, 1), {}),
    Case('nc_conv2d', (130, 10), (5, 4), (1, 1), {'stride': (2, 1)}),
    Case('nc_conv2d', (40, 36), (5, 4), (3, 2), {'padding': 1}),
    Case('nc_conv2d', (130, 3), (2, 3), (2, 2), {}),
    Case('nc_conv2d', (1030, 3), (2, 3), (1, 1), {'padding': (0, 1)}),
    Case('nc_conv2d', (3, 6), (12, 13), (3, 3), {'padding': 1, 'stride': 2}),
    Case('nc_conv2d', (40, 5), (1, 1), (1, 1), {}),
]


@pytest.fixture(autouse=True)
def full_precision():
    """Float32 products are compared as such; TF32 has the precision of float16."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(autouse=True)
def round_as_a_gpu(monkeypatch):
    """Triton 3.6's interpreter cuts float32 off to bfloat16, twice the error of rounding."""
    if backend.INTERPRETED:
        from triton.runtime import interpreter

        cut = interpreter.InterpreterBuilder.cast_impl

        def cast(builder, source, wanted):
            if (source.dtype.scalar.name, wanted.scalar.name) != ('fp32', 'bf16'):
                return cut(builder, source, wanted)
            rounded = torch.from_numpy(source.data.copy()).bfloat16().view(torch.uint16)
            return interpreter.TensorHandle(rounded.numpy(), wanted.scalar)

        monkeypatch.setattr(interpreter.InterpreterBuilder, 'cast_impl', cast)


def cotangent(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def out_shape(case, given):
    shaped = [t.to('meta') for t in given]
    return ops.nc_conv2d(*shaped[:2], **case.options, backend='aten').shape


def actual(case, given, format=torch.channels_last, **options):
    """Output and gradients of the kernels, on the CPU again."""
    x, *rest = (t.to(DEVICE) for t in given)
    back = cotangent(out_shape(case, given)).to(DEVICE)
    results = run('triton', case, (x.contiguous(memory_format=format), *rest), back, **options)
    return [result.cpu() for result in results]


def check(case, given, factor, floor, format=torch.channels_last):
    """The table's rule: so many times the definition's error in this dtype, and a floor."""
    truth = run('reference', case, [t.double() for t in given])
    definition = run('reference', case, given)
    results = actual(case, given, format)
    for name, t, d, a in zip(NAMES, truth, definition, results, strict=True):
        assert a.dtype == given[0].dtype
        error, yardstick = ((r - t).abs().max() for r in (a, d))
        assert error <= factor * yardstick + floor * t.abs().max(), name


@pytest.mark.parametrize('format', FORMATS, ids=str)
@pytest.mark.parametrize('case', PLANE + BLOCKS, ids=str)
def test_equals_the_definition(case, format):
    check(case, [t.float() for t in tensors(case)], TOLERANCE[1.0], FLOOR, format)


@pytest.mark.parametrize('case', WIDE, ids=str)
@pytest.mark.parametrize('mean', TOLERANCE)
def test_float32(case, mean):
    given = [t.float() for t in tensors(case, batch=1, mean=mean)]
    check(case, given, TOLERANCE[mean], FLOOR)


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('case', WIDE + BLOCKS[1:3], ids=str)
def test_half_precision(dtype, case):
    given = [t.to(dtype) for t in tensors(case, batch=1)]
    check(case, given, 3, torch.finfo(dtype).eps)


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('case', WIDE[:2], ids=str)
def test_autocast(dtype, case):
    """As test_accuracy.py has it: parameters in float32, activations in either."""
    x, weight, bias, gain = (t.float() for t in tensors(case))
    truth = run('reference', case, [t.double() for t in (x, weight, bias, gain)])
    for given in (x, x.to(dtype)):
        leaves = [t.to(DEVICE).requires_grad_() for t in (given.clone(), weight, bias, gain)]
        with torch.autocast(DEVICE, dtype):
            out = ops.nc_conv2d(*leaves[:3], gain=leaves[3], **case.options, backend='triton')
        assert out.dtype == dtype
        grads = torch.autograd.grad(out, leaves, cotangent(out.shape).to(DEVICE, dtype))
        for name, leaf, grad in zip(NAMES[1:], leaves, grads, strict=True):
            assert grad.dtype == leaf.dtype, name
        for name, t, a in zip(NAMES, truth, (out, *grads), strict=True):
            assert (a.cpu() - t).abs().max() <= 8 * torch.finfo(dtype).eps * t.abs().max(), name


@pytest.mark.parametrize('kernel', [1, 3])
def test_at_five_hundred_channels_as_good_as_the_plain_convolution(kernel):
    case = Case('nc_conv2d', (512, 8), (4, 4), (kernel, kernel), {'padding': kernel // 2})
    for mean in (0.0, 100.0):
        given = [t.float() for t in tensors(case, batch=1, mean=mean)]
        truth = run('reference', case, [t.double() for t in given])[0]
        result = actual(case, given)[0]
        error = (result - truth).abs().max() / truth.abs().max()
        x, weight = given[0] - mean, given[1]  # what the library loses without NC
        plain = F.conv2d(x.double(), weight.double(), padding=kernel // 2)
        x = x.to(DEVICE, memory_format=torch.channels_last)
        library = F.conv2d(x, weight.to(DEVICE), padding=kernel // 2).cpu()
        assert error <= 2 * (library - plain).abs().max() / plain.abs().max()


@pytest.mark.parametrize('kernel', [1, 3])
@pytest.mark.parametrize('bright', [1000.0, 30.0])
@pytest.mark.parametrize('dtype', [torch.float32, *HALF])
def test_bright_channels_cost_the_others_no_digits(kernel, bright, dtype):
    """The blocks of a 1x1 kernel's channels have means of their own, far from that of the pixel."""
    case = Case('nc_conv2d', (96, 8), (3, 4), (kernel, kernel), {})
    given = tensors(case, batch=1)
    given[0][:, :32] += bright
    check(case, [t.to(dtype) for t in given], 3, max(FLOOR, torch.finfo(dtype).eps))


@pytest.mark.parametrize('kernel', [1, 3])
@pytest.mark.parametrize(
    ('dtype', 'bright'),
    [(torch.float32, 1000.0), (torch.bfloat16, 250.0), (torch.float16, 250.0)],
)
def test_a_dark_region_beside_a_bright_one(kernel, dtype, bright):
    torch.manual_seed(0)
    x = torch.randn(1, 16, 12, 24)
    x[..., 12:] += bright
    x, weight = x.to(dtype), torch.randn(8, 16, kernel, kernel).to(dtype)
    truth = reference.nc_conv2d(x.double(), weight.double())
    definition = reference.nc_conv2d(x, weight)
    result = ops.nc_conv2d(x.to(DEVICE), weight.to(DEVICE), backend='triton').cpu()
    for half in (slice(0, 10), slice(12, 22)):
        scale = truth[..., half].abs().max()
        error, yardstick = ((r - truth)[..., half].abs().max() for r in (result, definition))
        assert error <= 3 * yardstick + max(FLOOR, torch.finfo(dtype).eps) * scale


@pytest.mark.parametrize('kernel', [1, 3])
def test_statistics_keep_float32_and_stand_a_large_mean(kernel):
    torch.manual_seed(0)
    weight = torch.randn(4, 16, kernel, kernel)
    for mean, allowed, dtype in ((1000, 1e-4, None), (200, 0.02, torch.bfloat16)):
        x = torch.randn(2, 16, 8, 8) + mean
        truth = reference.nc_conv2d(x.double(), weight.double())
        with torch.autocast(DEVICE, dtype, enabled=dtype is not None):
            out = ops.nc_conv2d(x.to(DEVICE), weight.to(DEVICE), backend='triton').cpu()
        assert (out - truth).abs().max() < allowed * truth.abs().max()


@pytest.mark.parametrize('case', [PLANE[0], PLANE[1], PLANE[4]], ids=str)
def test_constant_patches_give_the_bias(case):
    given = [torch.full_like(t, 0.7) if i == 0 else t for i, t in enumerate(tensors(case))]
    expected = run('reference', case, given)
    results = actual(case, [t.float() for t in given])
    for name, a, e in zip(NAMES, results, expected, strict=True):
        assert (a - e).abs().max() < 316 * 1e-6 * e.abs().max().clamp(min=1), name


@pytest.mark.parametrize('switches', [(True, False), (False, True), (False, False)])
def test_without_center_or_scale(switches):
    center, scale = switches
    given = [t.float() for t in tensors(PLANE[0])]
    expected = run('reference', PLANE[0], given, center=center, scale=scale)
    results = actual(PLANE[0], given, center=center, scale=scale)
    for a, e in zip(results, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'case', [PLANE[5], Case('nc_conv2d', (4, 34), (9, 8), (3, 3), {})], ids=str
)
def test_strips_of_tiles_add_up(case, monkeypatch):
    """Few programs share the output: strips of several tiles, the last one with tiles to spare."""
    from nc_plugins.ops import triton_passes

    monkeypatch.setattr(triton_passes, '_SPLITS', 3)
    given = [t.float() for t in tensors(case, batch=3)]
    for format in FORMATS:
        check(case, given, TOLERANCE[1.0], FLOOR, format)


@pytest.mark.parametrize('case', [PLANE[0], PLANE[1], PLANE[2]], ids=str)
def test_a_folded_weight_gives_the_same(case):
    x, weight, bias, gain = (t.float().to(DEVICE) for t in tensors(case))
    expected = ops.nc_conv2d(x, weight, bias, gain=gain, **case.options, backend='triton')
    steps = (case.options.get(name, usual) for name, usual in STEPS.items())
    geometry = reference.check('', 2, x, weight, None, None, *steps, 1e-5)
    folded = backend.fold(weight, gain, geometry, True, torch.float32)
    rest = (geometry, 1e-5, True, True, folded)
    wrong = torch.full_like(weight, torch.nan), bias, torch.full_like(gain, torch.nan)
    assert torch.equal(backend.nc_conv(x, *wrong, *rest), expected)
    assert backend.fold(weight, gain, geometry, False, torch.float32) is None


@pytest.mark.parametrize('case', [PLANE[0], PLANE[1]], ids=str)
def test_bits_are_the_same_in_every_run(case):
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
            if case.channels[0] > 1:  # else the input is in both
                assert out.is_contiguous(memory_format=layout)
            assert grads[0].is_contiguous(memory_format=layout)
            assert grads[1].is_contiguous(memory_format=other)


def test_strided_tensors():
    case = PLANE[0]
    x, weight, bias, gain = (t.float().to(DEVICE) for t in tensors(case))
    wide = torch.zeros(*x.shape[:3], x.shape[3] * 2, device=DEVICE)
    wide[..., ::2] = x
    turned = weight.transpose(2, 3).contiguous().transpose(2, 3)
    for given, filters in ((x, weight), (wide[..., ::2], turned)):
        given.requires_grad_()
        out = ops.nc_conv2d(given, filters, bias, gain=gain, padding=1, backend='triton')
        back = cotangent(()).to(DEVICE).expand_as(out)  # no strides at all
        (grad,) = torch.autograd.grad(out, given, back)
        if given is x:
            expected = out, grad
    for a, e in zip((out, grad), expected, strict=True):
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize('case', [PLANE[0], PLANE[1]], ids=str)
def test_only_the_gradients_asked_for(case):
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
def test_keeps_for_backward_the_input_the_weight_the_output_and_two_maps(kernel, with_bias):
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
def test_in_place_change_of_a_kept_output_is_reported(kernel):
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


@pytest.mark.parametrize('kernel', [1, 3])
def test_thirty_steps_give_the_same_losses(kernel):
    """In float32, to a relative 1e-4, as for the weights after them."""
    case = Case('nc_conv2d', (4, 2), (4, 4), (kernel, kernel), {'padding': kernel // 2})

    def train(chosen, device, dtype):
        x, *start = (t.to(device, dtype) for t in tensors(case))
        parameters = [t.clone().requires_grad_() for t in start]
        target = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(3))
        target = target.to(device, dtype)
        optimizer = torch.optim.SGD(parameters, lr=0.05)
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            weight, bias, gain = parameters
            out = ops.nc_conv2d(x, weight, bias, gain=gain, **case.options, backend=chosen)
            loss = (out - target).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        assert losses[-1] < 0.7 * losses[0]
        return [t.detach().cpu().double() for t in (torch.stack(losses), *parameters)]

    expected = train('reference', 'cpu', torch.float64)
    for a, e in zip(train('triton', DEVICE, torch.float32), expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-5)


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
    ('kernel', 'keep', 'format'),
    [(1, True, FORMATS[0]), (1, False, FORMATS[1]), (3, False, FORMATS[0]), (3, True, FORMATS[1])],
)
def test_operators_are_what_they_say(kernel, keep, format):
    """Schema, fake shapes and strides, aliasing, as torch.library.opcheck tests them."""
    geometry = reference.check(
        'nc_conv2d', 2, torch.empty(2, 6, 5, 7), torch.empty(8, 6, kernel, kernel), None, None, 2,
        kernel // 2, 1, 1, 1e-5,
    )  # fmt: skip
    x = torch.randn(2, 6, 5, 7, device=DEVICE).to(memory_format=format)
    weight = torch.randn(8, 6, kernel, kernel, device=DEVICE)
    bias, gain = torch.randn(2, 8, device=DEVICE).unbind()
    steps = backend._steps(geometry)
    utilities = ('test_schema', 'test_faketensor')
    arguments = (x, weight, bias, gain, steps, 1e-5, torch.float32, keep, None, None)
    torch.library.opcheck(backend._forward, arguments, test_utils=utilities)
    out, y, mean, rstd = backend._forward(*arguments)
    arguments = (
        torch.randn_like(out), x, weight, gain, y if keep else out, mean, rstd, steps,
        torch.float32, True, keep,
    )  # fmt: skip
    torch.library.opcheck(backend._backward, arguments, test_utils=utilities)


def test_what_it_cannot_serve_is_refused_and_left_to_another():
    x, weight = torch.zeros(2, 4, 9, 9, device=DEVICE), torch.zeros(8, 4, 3, 3, device=DEVICE)
    large = torch.zeros(8, 4, 9, 9, device=DEVICE)
    for call, given, match in (
        (ops.nc_conv1d, (x[..., 0], weight[..., 0]), 'ordinary 2-D convolutions alone'),
        (ops.nc_conv3d, (x[:, :, None], weight[:, :, None]), 'ordinary 2-D convolutions alone'),
        (ops.nc_conv_transpose2d, (x, weight[:4]), 'ordinary 2-D convolutions alone'),
        (ops.nc_conv2d, (x.double(), weight.double()), 'input is torch.float64'),
        (ops.nc_conv2d, (x, large), 'the kernel has 81 taps, wanted 64 at most'),
        (ops.nc_conv2d, (x.to('meta'), weight.to('meta')), 'the input is on meta, wanted cuda'),
    ):
        with pytest.raises(ValueError, match=f"backend 'triton' cannot run here: .*{match}"):
            call(*given, backend='triton')
        assert call(*given).numel() > 0


def test_interpreted_it_runs_by_name_alone():
    """'auto' takes it where it is fast."""
    x, weight = torch.zeros(2, 4, 9, 9, device=DEVICE), torch.zeros(8, 4, 3, 3, device=DEVICE)
    geometry = reference.check('', 2, x, weight, None, None, 1, 0, 1, 1, 1e-5)
    chosen = nc_conv._choose(x, weight, geometry)
    assert (chosen == 'triton') == (not backend.INTERPRETED)
    assert 'triton' in ops.available_backends()


@pytest.mark.parametrize('layer', photographs.LAYERS)
def test_error_on_photographs_is_at_most_twice_that_of_the_definition(layer):
    """As test_photographs.py, on smaller crops: bfloat16 autocast, flat sky and water included."""
    shape, options = photographs.LAYERS[layer]
    generator = torch.Generator().manual_seed(0)
    x = photographs.photographs(24)
    weight = torch.randn(shape, generator=generator) * 0.1
    gain, bias = (torch.randn(shape[0], generator=generator) for _ in range(2))
    exact = [t.double() for t in (x, weight, bias, gain)]
    truth = reference.nc_conv2d(*exact[:3], gain=exact[3], **options)
    results = {}
    for name, device in (('reference', 'cpu'), ('triton', DEVICE)):
        given = [t.to(device) for t in (x, weight, bias, gain)]
        with torch.autocast(device, torch.bfloat16):
            out = ops.nc_conv2d(*given[:3], gain=given[3], **options, backend=name)
        results[name] = (out.bfloat16().cpu().double() - truth).abs()
    for measure in (torch.max, lambda error: error.square().mean().sqrt()):
        assert measure(results['triton']) <= 2 * measure(results['reference'])
