"""Sets weight and bias of converted norms so that their outputs look like those of the old norms.

A converted network computes something else until it is trained again: NC standardises patches,
where BatchNorm standardised channels. Gain and bias that restore the mean and the standard
deviation of every channel recover much of it at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn


class Calibration:
    """Remembers a model before its conversion, and calibrates it afterwards.

    Args:
        model: the model before the conversion.
        norms: the norms that will be converted.
        data: one batch, which is a tensor or a dict, or an iterable of batches. A tensor is the
            model's argument; of a tuple or list the first item is, as in ``(images, labels)``; a
            dict is the batch of an mmengine model, otherwise keyword arguments. All batches are
            held in memory.
    """

    def __init__(self, model: nn.Module, norms: list[nn.Module], data) -> None:
        self.model = model
        self.norms = [norm for norm in norms if norm.weight is not None]
        self.batches = [data] if isinstance(data, (Tensor, dict)) else list(data)
        if not self.batches:
            raise ValueError('calibrate has no batches, wanted a batch or a loader of at least one')
        self._statistics = {norm: _Statistics() for norm in self.norms}
        self._signs = {norm: torch.sign(norm.weight.detach()) for norm in self.norms}
        with _observed(self.norms, lambda norm, out: self._statistics[norm].add(out)):
            self._outputs = self._run()

    def error(self) -> float | None:
        """Relative error of the model's output to that before the conversion.

        None if the outputs have no tensors of equal shapes, as those of a detector.
        """
        pairs = zip(self._outputs, self._run(), strict=False)
        pairs = [(old, new) for old, new in pairs if old.shape == new.shape]
        if not pairs:
            return None
        difference = sum((new - old).square().sum() for old, new in pairs)
        return float((difference / sum(old.square().sum() for old, _ in pairs)).sqrt())

    @torch.no_grad()
    def apply(self) -> None:
        """Set weight and bias, norm by norm in the order of execution.

        Each norm is set when it is called, so those behind it see its calibrated output. With
        several batches, or several calls in one forward, the statistics are those of all so far.
        """
        statistics = {norm: _Statistics() for norm in self.norms}
        affines = {}

        def calibrate(norm: nn.Module, out: Tensor) -> Tensor:
            statistics[norm].add(out)
            affines[norm] = self._affine(norm, statistics[norm])
            shape = (1, -1) + (1,) * (out.dim() - 2)
            weight, bias = (value.to(out).reshape(shape) for value in affines[norm])
            return out * weight + bias

        for norm in self.norms:
            nn.init.ones_(norm.weight), nn.init.zeros_(norm.bias)
        with _observed(self.norms, calibrate):
            self._run()
        for norm, (weight, bias) in affines.items():
            norm.weight.copy_(weight), norm.bias.copy_(bias)

    def _affine(self, norm: nn.Module, now: _Statistics) -> tuple[Tensor, Tensor]:
        wanted, sign = self._statistics[norm], self._signs[norm].to(now.mean)
        # A channel that is constant now gets the mean alone.
        varies = now.std > 1e-6
        weight = torch.where(varies, sign * wanted.std / now.std.clamp_min(1e-6), sign)
        return weight, wanted.mean - weight * now.mean

    @torch.no_grad()
    def _run(self) -> list[Tensor]:
        """Run all batches in evaluation mode. Returns the tensors in the outputs."""
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            outputs = [_forward(self.model, batch) for batch in self.batches]
        finally:
            for module, mode in modes.items():
                module.training = mode  # not train(), which a model may override
        return [tensor for output in outputs for tensor in _tensors(output)]


class _Statistics:
    """Mean and standard deviation of every channel over all tensors that were added."""

    count: int = 0
    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, tensor: Tensor) -> None:
        values = tensor.detach().double().movedim(1, 0).flatten(1)
        self.count += values.shape[1]
        self.total = self.total + values.sum(1)
        self.squares = self.squares + values.square().sum(1)

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    @property
    def std(self) -> Tensor:
        return (self.squares / self.count - self.mean.square()).clamp_min(0).sqrt()


@contextlib.contextmanager
def _observed(norms: Iterable[nn.Module], observe: Callable) -> Iterator[None]:
    """Call ``observe(norm, output)`` in every forward. What it returns replaces the output."""
    handles = []
    for norm in norms:
        if hasattr(norm, 'drop') and hasattr(norm, 'act'):  # its output without the activation
            before = partial(lambda norm, _, args: observe(norm, args[0]), norm)
            handles.append(norm.drop.register_forward_pre_hook(before))
        else:
            handles.append(norm.register_forward_hook(lambda norm, _, out: observe(norm, out)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _forward(model: nn.Module, batch):
    if isinstance(batch, Tensor):
        return model(batch)
    if isinstance(batch, (tuple, list)):
        return model(batch[0])
    if hasattr(model, 'data_preprocessor'):
        return model(**model.data_preprocessor(batch, False), mode='tensor')
    return model(**batch)


def _tensors(output) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output.detach().clone()
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)
