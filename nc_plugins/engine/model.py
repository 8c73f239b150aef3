"""Builds the model of a config without a run, to look at its layers."""

from __future__ import annotations

import contextlib
import copy

from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from .config_files import is_data, registered_types_only
from .explain import explain
from .preflight import enter_scope
from .usage import UsageError


def build_model(cfg: Config) -> nn.Module:
    """The model of ``cfg`` on the CPU. Pretrained weights are not loaded.

    Raises: UsageError.
    """
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor'):  # as mmengine's Runner
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    types = registered_types_only() if is_data(cfg.filename) else contextlib.nullcontext()
    try:
        with types:
            enter_scope(cfg)
            return MODELS.build(model)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(explain(error, cfg)) from error
