"""Prepares a model for inference: every NC layer holds the weight that it multiplies with.

A layer in training centres its weight, multiplies it by the gain and perhaps standardises it in
every call. A deployed layer has done this once, like a switch_to_deploy() block of RepVGG.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..ops import dispatch
from ..ops.backend import Folded, fold
from .conv import NormalizedConv, SamePadding, pad
from .join import applied_affine, check_input, join_affines, tag_output
from .norm import WithActivation


def deploy(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` for inference, in evaluation mode.

    Each NC layer of the copy holds the centred weight, with gain and weight standardisation
    applied, as a buffer, and the NCAffine behind it returns its input. Everything else is copied
    unchanged. The copy cannot be trained, and training checkpoints do not load into it.

    Raises:
        ValueError: a layer computes its weight in a forward pre-hook.

    Example::

        fast = nc_plugins.deploy(model)
        with torch.inference_mode():
            out = fast(images)
    """
    model = copy.deepcopy(model).eval()
    join_affines(model)
    with torch.no_grad():
        for path, layer in list(model.named_modules()):
            if isinstance(layer, NormalizedConv):
                if layer._forward_pre_hooks:
                    raise ValueError(
                        f'{path} has a forward pre-hook, for example of spectral_norm, weight_norm '
                        'or pruning: make that permanent first (remove_spectral_norm, prune.remove)'
                    )
                _deploy_layer(layer)
    return model


def _deploy_layer(layer: NormalizedConv) -> None:
    """Turn a layer into a DeployedConv in place, since several parents may hold it."""
    gain, bias, norm = layer.gain, layer.bias, layer._joined
    if norm is not None:
        gain, bias = applied_affine(norm, bias)
        norm._parameters.clear()
        act = isinstance(norm, WithActivation)
        norm.__class__ = DeployedAffineAct if act else DeployedAffine
    steps = (layer.stride, 0, layer.dilation, layer.groups)
    extra = layer.output_padding if layer.transposed else None
    size = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    weight = layer.weight
    patch = weight.new_empty(1, layer.in_channels, *size, device='meta')
    geometry = dispatch.plan_geometry(
        layer._operator, len(layer.kernel_size), patch, weight, None, None, *steps, extra
    )
    folded = fold(layer.standardized_weight(weight), gain, geometry, layer.center)
    layer._parameters.clear()
    layer._modules.clear()
    layer.__dict__.update(deployed_from=type(layer).__name__, _operator=layer._operator)
    layer.__class__ = DeployedConvSame if isinstance(layer, SamePadding) else DeployedConv
    layer.register_buffer('folded_weight', folded.weight.to(weight.dtype))
    layer.register_buffer('channel_sums', folded.channel_sums)
    layer.register_buffer('bias', bias if bias is None else bias.detach().clone())


class DeployedAffine(nn.Module):
    """An NCAffine of a deployed model. Its convolution applies the affine."""

    _expects = None

    def forward(self, input: Tensor) -> Tensor:
        check_input(self, input)
        return input


class DeployedAffineAct(WithActivation, DeployedAffine):
    """A DeployedAffine that runs the activation of its NCAffineAct."""


class DeployedConv(nn.Module):
    """An NC layer of a model that :func:`deploy` returned. It has the attributes of nn.ConvNd."""

    _joined = None
    _expected_by = 0

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        extra = None
        if self.transposed:
            extra = self.output_padding
            if output_size is not None:
                extra = nn.ConvTranspose2d._output_padding(
                    self, input, output_size, self.stride, self.padding, self.kernel_size, 2,
                    self.dilation,
                )  # fmt: skip
            extra = tuple(extra)
        input, padding = pad(self, input)
        folded = Folded(self.folded_weight, self.channel_sums)
        out = dispatch.normalized_convolution(
            self._operator, len(self.kernel_size), input, folded.weight, self.bias, None,
            self.stride, padding, self.dilation, self.groups, extra, self.eps, self.center,
            self.scale, self.backend, folded,
        )  # fmt: skip
        if self._joined is not None or self._expected_by:
            tag_output(self, out)
        return out

    def train(self, mode: bool = True):
        if mode:
            raise RuntimeError(
                f'{self.deployed_from}: this model was made by nc_plugins.deploy() for inference: '
                'train the model that deploy() was given'
            )
        return super().train(mode)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        if prefix + 'folded_weight' not in state_dict:
            raise RuntimeError(
                f'{prefix.rstrip(".")} was made by nc_plugins.deploy() and the checkpoint has no '
                f'{prefix}folded_weight: load a training checkpoint into the training model, then '
                'call deploy()'
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return (
            f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, '
            f'stride={self.stride}, from={self.deployed_from}'
        )


class DeployedConvSame(SamePadding, DeployedConv):
    """A DeployedConv of an NCConv2dSame."""
