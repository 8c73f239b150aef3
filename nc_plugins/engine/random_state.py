"""A hook that keeps validations from changing the random numbers of a training."""

from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module(force=True)
class KeepRandomStateHook(Hook):
    """Restore the random state after each validation.

    A data loader takes a number from torch's generator each time it is iterated. So without the
    hook a training with another val_interval shuffles, augments and drops out differently.
    """

    priority = 'VERY_HIGH'  # saves before other hooks draw random numbers

    def before_val(self, runner) -> None:
        self._state = (
            random.getstate(),
            np.random.get_state(),
            torch.get_rng_state(),
            torch.cuda.get_rng_state_all(),
        )

    def after_val(self, runner) -> None:
        python, numpy, cpu, cuda = self._state
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        torch.cuda.set_rng_state_all(cuda)
