"""Writes a trained model to one file that runs without this package."""

from __future__ import annotations

import os
import warnings
from importlib import import_module

import torch
from torch import Tensor, nn

from .layers.deployed import deploy
from .layers.stock import use_stock_operators

FORMATS = ('onnx', 'torch')
_OPSET = 18  # the first one in which every reduction takes its axes as an input


def export(
    model: nn.Module,
    file: str | os.PathLike,
    example: Tensor | tuple[Tensor, ...],
    format: str = 'onnx',
) -> None:
    """Write ``model`` for inference to ``file``, as a graph of stock operators.

    The model is joined and deployed first (see :func:`nc_plugins.deploy`), in a copy. The
    batch size and the sizes of images are free in the file. An axis that the model's own code fixes
    is named in a warning.

    Args:
        model: a trained model. It does not change.
        file: the path of the new file.
        example: the inputs of ``model.forward``, on its device and in its dtype. Axis 0 of each is
            the batch; axes from 2 on are sizes.
        format: 'onnx' for ONNX, opset 18. 'torch' for ``torch.export.load(file).module()``.

    Raises:
        ValueError: an unknown format.
        TypeError: the example is not a tensor or a tuple of tensors.
        ModuleNotFoundError: ONNX needs the packages onnx and onnxscript.
        RuntimeError: a norm does not receive the output of the convolution that it is joined with.

    Example::

        nc_plugins.export(model, 'model.onnx', torch.randn(1, 3, 224, 224))
    """
    if format not in FORMATS:
        raise ValueError(f'export: format is {format!r}, wanted one of {FORMATS}')
    if format == 'onnx':
        _require_onnx()
    inputs = example if isinstance(example, tuple) else (example,)
    for value in inputs:
        if not isinstance(value, Tensor):
            raise TypeError(
                f'export: example is or holds a {type(value).__name__}, wanted a tensor or a tuple '
                'of tensors, the arguments of forward'
            )
    program = _trace(model, inputs)
    _warn_of_fixed_axes(program)
    if format == 'torch':
        torch.export.save(program, file)
        return
    graph = torch.onnx.export(program, dynamo=True, opset_version=_OPSET, verbose=False)
    graph.model = _fuse(graph.model)
    graph.save(file)


def _require_onnx() -> None:
    for name in ('onnx', 'onnxscript'):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"export: format 'onnx' needs the package {name}: run pip install "
                "'nc_plugins[export]'"
            ) from error


def _trace(model: nn.Module, inputs: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    model = deploy(model)
    for name in [name for name, buffer in model._buffers.items() if buffer is None]:
        del model._buffers[name]  # torch.export (2.11) miscounts the buffers of its root module
        setattr(model, name, None)
    # torch.export takes an axis of size 1 as a constant.
    inputs = tuple(torch.cat((x, x)) if x.dim() and x.shape[0] == 1 else x for x in inputs)
    with torch.no_grad():
        model(*inputs)  # checks each joined pair; a graph is captured without this check
        use_stock_operators(model)
        axes = [{axis: torch.export.Dim.AUTO for axis in _free_axes(x)} for x in inputs]
        return torch.export.export(model, inputs, dynamic_shapes=tuple(axes))


def _free_axes(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.dim())) if x.dim() else ()


def _warn_of_fixed_axes(program: torch.export.ExportedProgram) -> None:
    from torch.fx.experimental.symbolic_shapes import is_concrete_int  # it imports sympy

    for node in program.graph.find_nodes(op='placeholder'):
        if node.name not in program.graph_signature.user_inputs:
            continue
        value = node.meta['val']
        for axis in _free_axes(value):
            if is_concrete_int(value.shape[axis]):
                warnings.warn(
                    f'export: axis {axis} of {node.name} is always {int(value.shape[axis])} in the '
                    "file, because the model's code does not work for other sizes",
                    stacklevel=3,
                )


def _fuse(model):
    """Replace the two nodes of a sum of squares by one, which needs no squared copy."""
    from onnxscript.rewriter import pattern, rewrite

    def squares_then_sum(op, x, axes):
        return op.ReduceSum(op.Pow(x, 2.0), axes, _outputs=['out'])

    def sum_of_squares(op, x, axes, out):
        keepdims = out.producer().attributes['keepdims'].as_int()
        return op.ReduceSumSquare(x, axes, keepdims=keepdims)

    return rewrite(model, [pattern.RewriteRule(squares_then_sum, sum_of_squares)])
