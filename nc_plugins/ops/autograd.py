"""The one autograd.Function of the operator. Backends supply its forward and backward pass."""

from __future__ import annotations

import torch

from . import aten, cpu, triton
from .backend import Needs
from .precision import cast, without_autocast

BACKENDS = {'triton': triton, 'cpu': cpu, 'aten': aten}


class NormalizedConvolution(torch.autograd.Function):
    """Normalized convolution with an explicit backward pass.

    Saved for backward: input, weight, gain, and what the backend returns beside the output. A
    second derivative differentiates the stock operators of aten.py.
    """

    @staticmethod
    def forward(ctx, input, weight, bias, gain, backend, plan):
        out, *saved = BACKENDS[backend].forward(input, weight, bias, gain, plan, save=True)
        ctx.save_for_backward(input, weight, gain, *saved)
        ctx.backend, ctx.plan = backend, plan
        ctx.bias_dtype = None if bias is None else bias.dtype
        return out

    @staticmethod
    def backward(ctx, grad):
        input, weight, gain, *saved = ctx.saved_tensors
        needs = Needs(*ctx.needs_input_grad[:4])
        with without_autocast(grad.device.type):
            if torch.is_grad_enabled():  # create_graph=True
                grads = aten.differentiable_backward(grad, input, weight, gain, needs, ctx.plan)
            else:
                backend = BACKENDS[ctx.backend]
                grads = backend.backward(grad, input, weight, gain, tuple(saved), needs, ctx.plan)
            dtypes = (
                input.dtype,
                weight.dtype,
                ctx.bias_dtype,
                None if gain is None else gain.dtype,
            )
            grads = [
                cast(part, dtype) if need else None
                for part, dtype, need in zip(grads, dtypes, needs, strict=True)
            ]
        return *grads, None, None
