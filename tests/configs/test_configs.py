"""Properties of every config on disk, whatever its task."""

import re
from pathlib import Path

import pytest

pytest.importorskip('mmengine')
from fresh_process import CONFIGS, load

TASKS = ('classification', 'cyclegan', 'deeplab', 'mask_rcnn')
FILES = [
    path.relative_to(CONFIGS).with_suffix('').as_posix() for path in sorted(CONFIGS.rglob('*.py'))
]
RUNNABLE = [name for name in FILES if not name.startswith('_base_/')]


def test_every_config_belongs_to_a_task_with_a_test_file():
    assert {name.split('/')[0] for name in FILES} == {'_base_', *TASKS}
    for task in TASKS:
        assert (Path(__file__).parent / f'test_{task}.py').is_file()


@pytest.mark.parametrize('name', RUNNABLE)
def test_the_header_contains_the_command(name):
    header = re.match(r'(#.*\n)+', (CONFIGS / f'{name}.py').read_text())
    assert header
    text = re.sub(r'\\\n#\s*', '', header.group())  # joins the two lines of a long command
    assert f'python tools/train.py configs/{name}.py' in text


@pytest.mark.parametrize('name', RUNNABLE)
def test_the_config_registers_and_records_by_itself(name):
    cfg = load(name)
    assert 'nc_plugins' in cfg.custom_imports.imports
    assert not cfg.custom_imports.get('allow_failed_imports')
    hooks = [hook.type for hook in cfg.custom_hooks]
    assert {'NCCensusHook', 'RunRecordHook', 'ShortHistoryHook'} <= {*hooks}
    assert cfg.default_hooks.get('visualization')  # tools/test.py --show-dir
    assert 'TensorboardVisBackend' in [backend.type for backend in cfg.visualizer.vis_backends]


@pytest.mark.parametrize('name', [name for name in RUNNABLE if name.startswith('classification')])
def test_the_loaders_start_in_mmpretrains_own_tools(name):
    """They set persistent_workers=True where the config has no value, which needs workers."""
    cfg = load(name)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        assert loader.num_workers or loader.get('persistent_workers') is False
