"""Every test starts from the same global state and leaves it unchanged, so their order is free."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# `make test` runs one process per core. The processes that tests start inherit the variable.
os.environ['OMP_NUM_THREADS'] = '1'

import numpy as np
import pytest
import torch

try:
    from mmengine.utils import ManagerMixin
except ImportError:  # the tests of the operators run with torch alone
    ManagerMixin = None

torch.set_num_threads(1)


def _set_deterministic(saved: bool) -> None:
    # Only after a change: the call imports torch's compiler, which takes seconds.
    if torch.are_deterministic_algorithms_enabled() != saved:
        torch.use_deterministic_algorithms(saved)


def _environment() -> dict[str, str]:
    return dict(os.environ)


def _set_environment(saved: dict[str, str]) -> None:
    for name in os.environ.keys() - saved.keys():
        del os.environ[name]
    os.environ.update(saved)


def _log_levels() -> dict[logging.Logger, int]:
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    return {logger: logger.level for logger in loggers if isinstance(logger, logging.Logger)}


def _set_log_levels(saved: dict[logging.Logger, int]) -> None:
    for logger, level in saved.items():
        logger.setLevel(level)


def _managers() -> dict[type, dict]:
    """mmengine's named instances by class: default scopes, loggers, message hubs, visualizers."""
    found, classes = {}, [ManagerMixin] if ManagerMixin else []
    while classes:
        cls = classes.pop()
        found[cls] = cls._instance_dict.copy()
        classes += cls.__subclasses__()
    return found


def _set_managers(saved: dict[type, dict]) -> None:
    for cls in _managers():
        cls._instance_dict.clear()
        cls._instance_dict.update(saved.get(cls, {}))


# How each part of the state is read, and how it is set.
STATE: tuple[tuple[Callable, Callable], ...] = (
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
    (torch.get_rng_state, torch.set_rng_state),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.are_deterministic_algorithms_enabled, _set_deterministic),
    (os.getcwd, os.chdir),
    (_environment, _set_environment),
    (_log_levels, _set_log_levels),
    (_managers, _set_managers),
)


# Started first, so that no core runs one of them while the others have finished.
LONGEST_FILES = (
    'test_triton.py',
    'test_gpu_build.py',
    'test_tasks.py',
    'test_like_conv2d.py',
    'test_train.py',
    'test_compile.py',
    'test_mask_rcnn.py',
    'test_deeplab.py',
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST_FILES)


@contextmanager
def same_state() -> Iterator[None]:
    """Seed the random generators, and restore the global state on exit."""
    saved = [(set_, get()) for get, set_ in STATE]
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    try:
        yield
    finally:
        for set_, value in saved:
            set_(value)


@pytest.fixture(autouse=True, scope='module')
def same_state_in_every_file() -> Iterator[None]:
    """Around the fixtures of a whole file."""
    with same_state():
        yield


@pytest.fixture(autouse=True)
def same_state_in_every_test() -> Iterator[None]:
    with same_state():
        yield


@pytest.fixture(scope='session')
def tiny_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder {train,val}/<0..9>/*.png with 2 and 1 images of noise a class."""
    cv2 = pytest.importorskip('cv2')
    root = tmp_path_factory.mktemp('digits')
    rng = np.random.default_rng(0)
    for split, count in (('train', 2), ('val', 1)):
        for label in range(10):
            (root / split / str(label)).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                cv2.imwrite(str(root / split / str(label) / f'{i}.png'), image)
    return root
