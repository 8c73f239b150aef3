"""What holds for every config on disk, whatever its task."""

import re
from pathlib import Path

import pytest

pytest.importorskip('mmengine')
from mmengine.config import Config

CONFIGS = Path(__file__).parents[2] / 'configs'
TASKS = ('classification', 'cyclegan', 'deeplab', 'mask_rcnn')
FILES = [path.relative_to(CONFIGS).as_posix() for path in sorted(CONFIGS.rglob('*.py'))]
RUNNABLE = [name for name in FILES if not name.startswith('_base_/')]


def load(name):
    return Config.fromfile(CONFIGS / name, import_custom_modules=False)


def test_every_file_belongs_to_a_task_that_is_tested():
    assert {name.split('/')[0] for name in FILES} == {'_base_', *TASKS}
    for task in TASKS:
        assert (Path(__file__).parent / f'test_{task}.py').is_file()


@pytest.mark.parametrize('name', RUNNABLE)
def test_it_opens_with_what_it_is_and_its_command(name):
    head = re.match(r'(#.*\n)+', (CONFIGS / name).read_text())
    assert head
    text = re.sub(r'\\\n#\s*', '', head.group())  # a long command goes on in the next line
    assert f'python tools/train.py configs/{name}' in text


@pytest.mark.parametrize('name', RUNNABLE)
def test_it_registers_and_records_by_itself(name):
    cfg = load(name)
    assert 'nc_plugins' in cfg.custom_imports.imports
    assert not cfg.custom_imports.get('allow_failed_imports')
    hooks = [hook.type for hook in cfg.custom_hooks]
    assert {'NCCensusHook', 'RunRecordHook', 'ShortHistoryHook'} <= {*hooks}
    assert cfg.default_hooks.get('visualization')  # tools/test.py --show-dir
    assert 'TensorboardVisBackend' in [backend.type for backend in cfg.visualizer.vis_backends]
