"""The fixtures of conftest.py restore what a test changes."""

import logging
import os
import random

import numpy as np
import pytest
import torch

from .conftest import same_state


def draws():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_random_generators_are_seeded_inside_and_continue_outside():
    torch.manual_seed(1)
    expected = torch.rand(()).item()
    torch.manual_seed(1)
    with same_state():
        first = draws()
    assert torch.rand(()).item() == expected
    random.seed(1)
    np.random.seed(1)
    with same_state():
        assert draws() == first


@pytest.mark.parametrize('error', [None, ValueError('on purpose')])
def test_global_state_is_restored_even_after_an_error(tmp_path, error):
    logger = logging.getLogger('nc_plugins.test')
    logger.setLevel(logging.INFO)
    folder, variables = os.getcwd(), dict(os.environ)
    try:
        with same_state():
            torch.set_num_threads(2)
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(False)
            torch.use_deterministic_algorithms(True)
            logger.setLevel(logging.ERROR)
            os.chdir(tmp_path)
            os.environ['NC_ADDED'] = '1'
            os.environ['OMP_NUM_THREADS'] = '2'
            if error:
                raise error
    except ValueError:
        assert error
    assert torch.get_num_threads() == 1
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert logger.level == logging.INFO
    assert (os.getcwd(), dict(os.environ)) == (folder, variables)


def test_named_instances_of_mmengine_are_forgotten():
    registry = pytest.importorskip('mmengine.registry')
    logging_ = pytest.importorskip('mmengine.logging')
    registry.DefaultScope.get_instance('before', scope_name='mmengine')
    with same_state():
        registry.DefaultScope.get_instance('inside', scope_name='mmpretrain')
        logging_.MessageHub.get_instance('inside')
    assert registry.DefaultScope.get_current_instance().scope_name == 'mmengine'
    assert not logging_.MessageHub.check_instance_created('inside')
