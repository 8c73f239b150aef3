"""The public operators."""

from __future__ import annotations

from torch import Tensor

from .dispatch import normalized_convolution


def nc_conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, dilation=1,
    groups: int = 1, *, gain: Tensor | None = None, eps: float = 1e-5, center: bool = True,
    scale: bool = True, backend: str = 'auto',
) -> Tensor:  # fmt: skip
    """:func:`nc_conv2d` over one spatial axis.

    Shapes: input [N, C, L], weight [O, C/groups, k], bias and gain [O] -> [N, O, L'].
    """
    return normalized_convolution(
        'nc_conv1d', 1, input, weight, bias, gain, stride, padding, dilation, groups, None,
        eps, center, scale, backend,
    )  # fmt: skip


def nc_conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, dilation=1,
    groups: int = 1, *, gain: Tensor | None = None, eps: float = 1e-5, center: bool = True,
    scale: bool = True, backend: str = 'auto',
) -> Tensor:  # fmt: skip
    """Convolve ``input`` with ``weight`` after standardising every patch.

    Dtypes: float64, float32, bfloat16 or float16. Input and weight have the same one; bias and gain
    may be float32 beside half precision. Statistics are taken in float32 (float64 for float64).
    Under autocast any dtypes go together, and the output has the dtype that nn.Conv2d returns.

    Args:
        input: [N, C, H, W]. N may be 0.
        weight: the filters [O, C/groups, kh, kw].
        bias: [O].
        stride: distance of two patches, in input pixels.
        padding: zeros on each side, in input pixels, or 'same' or 'valid'. They belong to the
            patch.
        dilation: distance of two kernel positions, in input pixels.
        groups: number of groups of channels, each with its own patches.
        gain: [O], factor of each output channel, applied before ``bias`` is added. It costs no pass
            over the output.
        eps: in squared units of ``input``, added to the variance inside the root.
        center: subtract the mean of the patch.
        scale: divide by the standard deviation of the patch, which is taken about the mean even
            with ``center=False``. With both False the result is the plain convolution.
        backend: 'auto' or a name of :func:`available_backends`.

    Returns:
        [N, O, H', W'] in the input's memory format.

    Accuracy in float32: like the im2col definition for patches with mean/std up to about 3, and
    better by at least one digit from 100 on. docs/math.md has the figures.

    Raises:
        TypeError: an argument has the wrong type, or dtypes do not go together.
        ValueError: shapes or devices do not fit, eps <= 0, the backend is unknown or cannot run
            with these tensors, or C/groups*kh*kw == 1 (the variance of one value is always 0).

    Source: arXiv 2005.05274, Sec. 2.1 and 2.4. Definition: ops/reference.py.
    """
    return normalized_convolution(
        'nc_conv2d', 2, input, weight, bias, gain, stride, padding, dilation, groups, None,
        eps, center, scale, backend,
    )  # fmt: skip


def nc_conv3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, dilation=1,
    groups: int = 1, *, gain: Tensor | None = None, eps: float = 1e-5, center: bool = True,
    scale: bool = True, backend: str = 'auto',
) -> Tensor:  # fmt: skip
    """:func:`nc_conv2d` over three spatial axes.

    Shapes: input [N, C, D, H, W], weight [O, C/groups, kd, kh, kw] -> [N, O, D', H', W'].
    """
    return normalized_convolution(
        'nc_conv3d', 3, input, weight, bias, gain, stride, padding, dilation, groups, None,
        eps, center, scale, backend,
    )  # fmt: skip


def nc_conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0,
    output_padding=0, groups: int = 1, dilation=1, *, gain: Tensor | None = None,
    eps: float = 1e-5, center: bool = True, scale: bool = True, backend: str = 'auto',
) -> Tensor:  # fmt: skip
    """Transposed convolution that standardises the values each output position receives.

    Shapes: input [N, C, H, W], weight [C, O/groups, kh, kw], bias and gain [O] -> [N, O, H', W'];
    the order of arguments is that of ``torch.nn.functional.conv_transpose2d``.

    Position k of the output sees the input pixels whose kernel covers it: C/groups * taps_k values.
    The statistics are over these alone, not over the zeros that a stride inserts nor those beyond
    the border. A position that one value or none reaches gives the bias.

    Otherwise as :func:`nc_conv2d`.
    """
    return normalized_convolution(
        'nc_conv_transpose2d', 2, input, weight, bias, gain, stride, padding, dilation, groups,
        output_padding, eps, center, scale, backend,
    )  # fmt: skip
