"""The Python blocks of the pages run, those of one page in one namespace. Configs build a model."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from nc_plugins import layer_census

from .pages import PAGES, blocks

# They write ONNX files, which takes seconds.
SLOW = {'docs/export.md', 'docs/start/torch.md'}


def is_config(block: str) -> bool:
    return 'custom_imports' in block


PROGRAMS = {
    page: [block for block in blocks(page, 'python') if not is_config(block)] for page in PAGES
}
CONFIGS = {page: [block for block in blocks(page, 'python') if is_config(block)] for page in PAGES}


def test_all_pages_are_read():
    assert all(PROGRAMS[page] for page in ('README.md', 'docs/convert.md', 'docs/layers.md', *SLOW))
    assert all(CONFIGS[page] for page in ('README.md', 'docs/configs.md', 'docs/start/mmseg.md'))


@pytest.mark.parametrize(
    'page',
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [])
        for page in PAGES
        if PROGRAMS[page]
    ],
)
def test_programs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for number, block in enumerate(PROGRAMS[page]):
        exec(compile(block, f'{page}, Python block {number}', 'exec'), namespace)


@pytest.mark.slow
@pytest.mark.parametrize('page', [page for page in PAGES if CONFIGS[page]])
def test_configs(page, tmp_path):
    # The clone of mmsegmentation that docs/start/mmseg.md inherits from.
    clone = Path(find_spec('mmseg').origin).with_name('.mim')
    (tmp_path / 'mmsegmentation').symlink_to(clone)
    for number, block in enumerate(CONFIGS[page]):
        file = tmp_path / f'config_{number}.py'
        file.write_text(block)
        config = Config.fromfile(file)
        init_default_scope(config.default_scope)
        assert layer_census(MODELS.build(config.model))['NC'] > 0
