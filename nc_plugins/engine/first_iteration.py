"""What the first iteration tells users of mmengine, also those of OpenMMLab's own train.py.

Those have no hook of this package, so the layers call :func:`before_first_iteration`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from mmengine.config import Config
from mmengine.logging import MessageHub, print_log
from mmengine.model import is_model_wrapper
from torch import nn

from ..layers import half_swap
from .slots import ignored_slots, inner_model
from .usage import type_name

_DONE = 'nc_slots_checked'  # in the message hub of the run


class _RunLog(logging.Handler):
    """Writes the messages of ops, such as the chosen backend, to the log of the run."""

    def emit(self, record: logging.LogRecord) -> None:
        print_log(record.getMessage(), 'current', record.levelno)


_RUN_LOG, _LOGGER = _RunLog(), logging.getLogger('nc_plugins')


def show_backend() -> None:
    """Write the choice of ``backend='auto'`` to the log of mmengine's run."""
    _LOGGER.addHandler(_RUN_LOG)  # a second call changes nothing
    _LOGGER.setLevel(logging.INFO)


def warn_of_ignored_slots(model: nn.Module, cfg: Mapping) -> None:
    """Log a warning for each slot of the config that did not reach its layers."""
    MessageHub.get_current_instance().update_info(_DONE, True, resumed=False)
    for warning in ignored_slots(cfg, model):
        print_log(warning, 'current', logging.WARNING)


def before_first_iteration(model: nn.Module) -> None:
    """What the layers call before the first forward of a model in training mode."""
    hub = MessageHub.get_current_instance()
    text = hub.get_info('cfg')  # written by mmengine's RuntimeInfoHook
    if text is None or hub.get_info(_DONE):
        return  # no run of mmengine, or NCCensusHook has done this
    show_backend()
    try:
        cfg = Config.fromstring(text, '.py')
    except NameError:
        return  # infinity and NaN are inf and nan in the text, which Python cannot read
    model = unwrapped(model)
    if _is_built_from(cfg.get('model'), model):
        warn_of_ignored_slots(model, cfg)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside of DistributedDataParallel and similar wrappers."""
    return model.module if is_model_wrapper(model) else model


def _is_built_from(cfg: Mapping | None, model: nn.Module) -> bool:
    """False for a part of the model, such as a backbone that is called by itself."""
    return cfg is not None and type_name(inner_model(cfg)) == type(model).__name__


half_swap.before_first_training_forward = before_first_iteration
