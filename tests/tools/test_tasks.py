"""Detection, segmentation and translation through tools/train.py and tools/test.py.

Whole runs in processes of their own, on a handful of digit images and the digits configs as they
are; what is wrong with data in this process.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmcv._ext')
import numpy as np
from mmengine.registry import DefaultScope
from PIL import Image

from nc_plugins.datasets.digits import write_digits

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'


def tool(name):
    spec = importlib.util.spec_from_file_location(f'tool_{name}', ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


train = tool('train')


def write(root):
    """data/digits under ``root``: 6 scenes to train, 2 to test, 4 images a domain."""
    write_digits(root / 'data/digits', scenes_train=6, scenes_val=2, seed=0)
    for domain in (root / 'data/digits/unpaired').iterdir():
        for path in sorted(domain.iterdir())[4:]:
            path.unlink()


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    root = tmp_path_factory.mktemp('tasks')
    write(root)
    return root


@pytest.fixture
def spoilt(tmp_path, monkeypatch):
    """The same data for one test to damage, in the current folder."""
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    scopes = dict(DefaultScope._instance_dict)
    yield tmp_path / 'data/digits'
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)


def run(name, *args, folder):
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, str(ROOT / 'tools' / f'{name}.py'), *map(str, args)]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=600
    )
