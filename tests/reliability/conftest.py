"""A small classifier on random images, and a call of the tools in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path += [str(ROOT / 'tools'), str(HERE)]

CONFIG = """
_base_ = '{root}/configs/classification/resnet18_{norm}_1xb2_digits.py'
custom_imports = dict(
    imports=['nc_plugins', 'nc_plugins.models.resnet', 'double_precision'],
    allow_failed_imports=False,
)
model = dict(
    type='{model}Classifier',
    data_preprocessor=dict(type='{preprocessor}Preprocessor'),
    backbone=dict(stem_channels=8, base_channels=8),
    head=dict(in_channels=64),
)
train_dataloader = dict(dataset=dict(data_root='{images}'))
val_dataloader = dict(dataset=dict(data_root='{images}'))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1))
visualizer = dict(vis_backends=[dict(type='LocalVisBackend')])
"""


@pytest.fixture
def config(tiny_digits, tmp_path):
    """Writes a config of two epochs with 20 images each, and returns its path."""
    pytest.importorskip('mmpretrain')

    def write(norm='nc', double=False, more=''):
        # A name of its own: mmengine names its logger after the config and the second.
        path = tmp_path / f'{tmp_path.name}_{norm}_{double}.py'
        model, preprocessor = ('Double', 'Double') if double else ('Image', 'ClsData')
        names = dict(root=ROOT, images=tiny_digits, norm=norm)
        names.update(model=model, preprocessor=preprocessor)
        path.write_text(CONFIG.format(**names) + more)
        return str(path)

    return write


@pytest.fixture
def start():
    """Starts a command on one thread and without a GPU, in a process group of its own."""
    processes = []

    def popen(*command, **env):
        env = {
            **os.environ,
            'PYTHON': sys.executable,  # of the shell scripts
            'PYTHONPATH': os.pathsep.join([str(ROOT), str(HERE)]),
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
            **env,
        }
        processes.append(
            subprocess.Popen(
                [*map(str, command)],
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return processes[-1]

    yield popen
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start):
    """Runs a command to its end and returns (exit code, output)."""

    def call(*command, **env):
        process = start(*command, **env)
        output = ''.join(process.communicate(timeout=300))
        return process.returncode, output

    return call
