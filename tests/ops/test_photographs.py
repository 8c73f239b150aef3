"""Bfloat16 autocast on photographs, flat sky and water included, beside the definition there.

The error is at most twice the definition's: root mean square of output and gradients, and the
largest of the output. The largest of a gradient too for 'cpu'; 'aten' reaches 3.5 times it, where
half precision rounds the convolution's own gradient.
"""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image

from nc_plugins import ops
from nc_plugins.ops import reference

from .cases import BACKENDS

LAYERS = {
    '7x7': ((16, 3, 7, 7), {'stride': 2, 'padding': 3}),
    '3x3': ((16, 3, 3, 3), {'padding': 1}),
    '1x1': ((16, 3, 1, 1), {}),
}


def photographs(size: int = 96) -> torch.Tensor:
    """Crops [3, 3, size, size] of sky, of water with a roof, of a flower; normalised."""
    china, flower = (load_sample_image(f'{name}.jpg') for name in ('china', 'flower'))
    places = [(china, 20, 400), (china, 240, 96), (flower, 150, 250)]
    crops = [image[row : row + size, column : column + size] for image, row, column in places]
    image = torch.stack([torch.from_numpy(crop.copy()) for crop in crops]).movedim(3, 1).float()
    mean, std = torch.tensor([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]]).view(2, 3, 1, 1)
    return (image - mean) / std


def errors(operator, tensors, options, truth=None):
    """Output and gradients of input, weight and gain; beside the truth, rms and largest error."""
    x, weight, gain, bias, cotangent = tensors
    leaves = [t.clone().requires_grad_() for t in (x, weight, gain)]
    out = operator(leaves[0], leaves[1], bias, gain=leaves[2], **options)
    results = [out.detach(), *torch.autograd.grad(out, leaves, cotangent.to(out.dtype))]
    if truth is None:
        return results
    # The definition's affine returns float32 in autocast, a layer what a convolution returns there.
    results[0] = results[0].bfloat16()
    differences = [(r.double() - t).abs() for r, t in zip(results, truth, strict=True)]
    return [(d.square().mean().sqrt().item(), d.max().item()) for d in differences]


@pytest.mark.parametrize('half_input', [False, True], ids=['float32 image', 'bfloat16 image'])
@pytest.mark.parametrize('layer', LAYERS)
@pytest.mark.parametrize('backend', BACKENDS)
def test_error_is_at_most_twice_that_of_the_definition(backend, layer, half_input):
    shape, options = LAYERS[layer]
    generator = torch.Generator().manual_seed(0)
    image = photographs()
    x = image.bfloat16() if half_input else image
    weight = torch.randn(shape, generator=generator) * 0.1
    gain, bias = (torch.randn(shape[0], generator=generator) for _ in range(2))
    plain = F.conv2d(image, weight, **options)
    cotangent = torch.randn(plain.shape, generator=generator).bfloat16()
    tensors = (x, weight, gain, bias, cotangent)
    truth = errors(reference.nc_conv2d, [t.double() for t in tensors], options)
    with torch.autocast('cpu', torch.bfloat16):
        definition = errors(reference.nc_conv2d, tensors, options, truth)
        actual = errors(
            lambda *a, **k: ops.nc_conv2d(*a, **k, backend=backend), tensors, options, truth
        )
    for name, a, d in zip(('output', 'input', 'weight', 'gain'), actual, definition, strict=True):
        assert a[0] <= 2 * d[0], f'{name}: rms error {a[0]:.1e}, of the definition {d[0]:.1e}'
        if backend == 'cpu' or name == 'output':
            assert a[1] <= 2 * d[1], f'{name}: largest {a[1]:.1e}, of the definition {d[1]:.1e}'


def test_the_photographs_have_flat_patches():
    """Where a mean is many times the deviation: what half precision loses first."""
    patches = F.unfold(photographs(), 3)
    ratio = patches.mean(1).abs() / patches.std(1)
    assert (ratio > 15).float().mean() > 0.03
