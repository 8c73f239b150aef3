"""Float32 error of NC, as a table for docs/math.md.

    python benchmarks/accuracy.py

The error is the largest deviation from the definition in float64, divided by the largest entry of
the result. The table has the largest error of three seeds, and for the gradients the largest of
input, weight and gain. 'NC' is the backend that 'auto' chooses, 'definition' is im2col in float32.
"""

import torch
import torch.nn.functional as F

from nc_plugins import ops
from nc_plugins.ops import reference

CASES = {  # name: input shape, weight shape, options
    '1x1, 64 to 64, 28x28': ((2, 64, 28, 28), (64, 64, 1, 1), {}),
    '3x3, 64 to 64, 28x28': ((2, 64, 28, 28), (64, 64, 3, 3), {'padding': 1}),
    '7x7, 3 to 64, 56x56': ((2, 3, 56, 56), (64, 3, 7, 7), {'stride': 2, 'padding': 3}),
    '3x3, 512 to 512, 7x7': ((2, 512, 7, 7), (512, 512, 3, 3), {'padding': 1}),
}


def errors(operator, tensors, truth=None, dtype=torch.float32, **options):
    """Errors of output and gradients against ``truth``, or without it the results themselves."""
    x, weight, gain, cotangent = (t.to(dtype).requires_grad_() for t in tensors)
    out = operator(x, weight, gain=gain, **options)
    results = [out, *torch.autograd.grad(out, (x, weight, gain), cotangent)]
    if truth is None:
        return [r.detach() for r in results]
    pairs = zip(results, truth, strict=True)
    return [((r - t).abs().max() / t.abs().max()).item() for r, t in pairs]


def main() -> None:
    print('| case | mean/std | output: NC | definition | gradients: NC | definition |')
    print('| --- | --- | --- | --- | --- | --- |')
    for name, (shape, weight_shape, options) in CASES.items():
        plain = 0.0
        for mean in (0, 1, 3, 10, 100, 1000):
            rows = []
            for seed in range(3):
                torch.manual_seed(seed)
                x, weight = torch.randn(shape) + mean, torch.randn(weight_shape)
                convolved = F.conv2d(x, weight, **options)
                tensors = (x, weight, torch.randn(weight_shape[0]), torch.randn_like(convolved))
                truth = errors(reference.nc_conv2d, tensors, dtype=torch.float64, **options)
                ours = errors(ops.nc_conv2d, tensors, truth, **options)
                definition = errors(reference.nc_conv2d, tensors, truth, **options)
                rows.append((ours[0], definition[0], max(ours[1:]), max(definition[1:])))
                if mean == 0:
                    exact = F.conv2d(x.double(), weight.double(), **options)
                    plain = max(plain, ((convolved - exact).abs().max() / exact.abs().max()).item())
            worst = ' | '.join(f'{max(column):.1e}' for column in zip(*rows, strict=True))
            print(f'| {name} | {mean} | {worst} |', flush=True)
        print(f'| {name} | 0 | plain convolution: {plain:.1e} | | | |', flush=True)


if __name__ == '__main__':
    main()
