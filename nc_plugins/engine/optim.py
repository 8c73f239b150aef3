"""Optimizers for the parts of a model, such as the generators and discriminators of a GAN."""

from __future__ import annotations

from collections import Counter

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn


# force: a second import (reload, two names for one file) must register again, not raise.
@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class PartsOptimWrapperConstructor:
    """Build one OptimWrapper for each part of a model.

        optim_wrapper = dict(
            constructor='PartsOptimWrapperConstructor',
            generator=dict(optimizer=dict(type='Adam', lr=2e-4)),
            discriminator=dict(optimizer=dict(type='Adam', lr=2e-4)),
        )

    A part consists of the children of the model whose names begin with its name: 'generator' is
    generator_AB and generator_BA. Keys without an optimizer (``type='AmpOptimWrapper'``,
    ``clip_grad``) apply to every part.

    Raises: ValueError if a part has no child, or if a trainable parameter does not belong to
        exactly one part.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.parts, self.shared = {}, {}
        for key, value in optim_wrapper_cfg.items():
            is_part = isinstance(value, dict) and 'optimizer' in value
            (self.parts if is_part else self.shared)[key] = value
        if paramwise_cfg is not None:
            self.shared['paramwise_cfg'] = paramwise_cfg
        if not self.parts:
            raise ValueError(
                'optim_wrapper has no part with an optimizer, such as '
                "generator=dict(optimizer=dict(type='Adam', lr=2e-4))"
            )

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        children = dict((model.module if is_model_wrapper(model) else model).named_children())
        wrappers = {}
        for part, cfg in self.parts.items():
            matching = {name: child for name, child in children.items() if name.startswith(part)}
            if not matching:
                raise ValueError(
                    f"optim_wrapper has a part '{part}', but no child of the model has a name that "
                    f'begins with it: {", ".join(children)}'
                )
            wrappers[part] = build_optim_wrapper(nn.ModuleDict(matching), {**self.shared, **cfg})
        trained = [p for w in wrappers.values() for g in w.param_groups for p in g['params']]
        times = Counter(map(id, trained))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and times[id(parameter)] != 1:
                raise ValueError(
                    f"{times[id(parameter)]} parts of optim_wrapper train the model's {name}, but "
                    f'exactly one must: the parts are {", ".join(self.parts)}'
                )
        return OptimWrapperDict(**wrappers)
