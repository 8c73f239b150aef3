"""Loading a checkpoint never runs code, by any route."""

import os
import re
import runpy
import subprocess
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.runner.checkpoint import load_from_local
from torch import nn

from nc_plugins.engine.safe_loading import (
    CheckpointError,
    CheckpointMatchHook,
    allowed_globals,
    load_checkpoint,
    match,
    protect,
)
from nc_plugins.layers import NCConv2d

toy = runpy.run_path(str(Path(__file__).with_name('toy.py')))['runner']


class Payload:
    """An object whose unpickling creates a file."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def payloads(mark):
    """Objects that run code when they are unpickled without protection."""
    command = f'touch {mark}'
    return {
        'os.system': Payload(os.system, command),
        'eval': Payload(eval, f'open({str(mark)!r}, "w")'),
        'exec': Payload(exec, f'open({str(mark)!r}, "w")'),
        'subprocess': Payload(subprocess.call, ['touch', str(mark)]),
        # The first step to any function: HistoryBuffer.__init__.__globals__
        'getattr': Payload(getattr, HistoryBuffer, '__init__'),
    }


@pytest.fixture
def mark(tmp_path):
    return tmp_path / 'code-has-run'


@pytest.mark.parametrize('name', payloads('x'))
def test_no_payload_runs(name, tmp_path, mark):
    protect()
    path = tmp_path / 'bad.pth'
    torch.save({'state_dict': {}, 'meta': payloads(mark)[name]}, path)
    with pytest.raises(CheckpointError, match=r'could run code .* add --trust-checkpoint'):
        load_checkpoint(path)
    assert not mark.exists()


class Pretrained(BaseModule):
    def __init__(self, path):
        super().__init__(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
        self.layer = nn.Linear(1, 1)


@pytest.mark.parametrize('route', ['load_from', 'resume', 'Pretrained', 'torch.load', 'unsafe'])
def test_no_route_of_a_checkpoint_runs_code(route, tmp_path, mark):
    protect()
    path = tmp_path / 'bad.pth'
    content = {'state_dict': {}, 'meta': {'epoch': 1, 'iter': 1, 'x': payloads(mark)['os.system']}}
    torch.save(content, path)
    with pytest.raises(Exception, match=r'could run code|Weights only load failed'):
        if route == 'Pretrained':
            Pretrained(path).init_weights()
        elif route == 'torch.load':
            torch.load(path)
        elif route == 'unsafe':
            torch.load(path, weights_only=False)
        else:
            toy(tmp_path / 'w', load_from=str(path), resume=route == 'resume').train()
    assert not mark.exists()


def test_trust_is_a_choice(tmp_path, mark):
    protect(trust=True)
    torch.save({'x': payloads(mark)['os.system']}, tmp_path / 'mine.pth')
    load_checkpoint(tmp_path / 'mine.pth')
    assert mark.exists()


def test_checkpoints_of_ours_and_of_mmengine_load(tmp_path):
    protect()
    toy(tmp_path / 'ours').train()
    content = load_checkpoint(tmp_path / 'ours' / 'epoch_3.pth')
    assert isinstance(content['message_hub']['log_scalars']['train/loss'], HistoryBuffer)
    numbers = {'a': np.float64(1.5), 'b': np.arange(3), 'c': np.array([True]), 'd': np.float32(2)}
    torch.save({'meta': {'dataset_meta': numbers}}, tmp_path / 'numpy.pth')
    # As after a download, which mmengine loads with a list of its own.
    with torch.serialization.safe_globals(allowed_globals()):
        pass
    assert load_checkpoint(tmp_path / 'numpy.pth')['meta']['dataset_meta']['a'] == 1.5


@pytest.mark.parametrize('content', [b'', b'text', b'\x80\x02.'])
def test_a_broken_file_is_named(content, tmp_path):
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(CheckpointError, match=r'checkpoint .*x.pth (cannot be read|holds)'):
        load_checkpoint(tmp_path / 'x.pth')


def test_a_checkpoint_of_something_else_is_refused_with_the_counts():
    def net(width=4, depth=1):
        return nn.Sequential(OrderedDict(
            (f'l{i}', NCConv2d(width, width, 3, affine=True)) for i in range(depth)
        ))  # fmt: skip

    entries = len(net().state_dict())
    whole = {f'module.{k}': v for k, v in net().state_dict().items()}
    assert match(net(), whole) == (entries, '')
    for state, wanted in [
        ({}, f'fits 0 of the {entries} weights .*: {entries} missing .*such as l0'),
        (net(depth=2).state_dict(), rf'fits {entries} of the {entries} .* unknown to .*l1\.'),
        (net(width=5).state_dict(), rf'fits 0 of the {entries} .* of another shape'),
    ]:
        assert re.search(wanted, match(net(), state)[1])


@pytest.mark.parametrize(('whole', 'fits', 'refused'), [
    (True, 1, True), (False, 1, False), (False, 0, True),
])  # fmt: skip
def test_a_part_of_a_checkpoint_may_start_a_training_but_not_a_test(tmp_path, whole, fits, refused):
    state = dict(list(toy(tmp_path / 'a').model.state_dict().items())[:fits], other=torch.zeros(1))
    torch.save({'state_dict': state}, tmp_path / 'part.pth')
    training = toy(tmp_path / 'b', load_from=str(tmp_path / 'part.pth'))
    training.register_hook(CheckpointMatchHook(whole), priority='LOWEST')
    if refused:
        with pytest.raises(CheckpointError, match=f'fits {fits} of the 2 weights'):
            training.train()
    else:
        training.train()


def test_mmengines_own_loader_would_run_the_code(tmp_path, mark):
    """Otherwise the tests above could not fail."""
    torch.save({'state_dict': {}, 'x': payloads(mark)['os.system']}, tmp_path / 'bad.pth')
    load_from_local(str(tmp_path / 'bad.pth'), 'cpu')
    assert mark.exists()
