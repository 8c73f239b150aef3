"""The Python blocks of the pages run, those of one page in one namespace."""

import pytest
from mmengine.config import Config

from .pages import PAGES, ROOT, blocks

# They write ONNX files, which takes seconds.
SLOW = {'docs/export.md', 'docs/start/torch.md'}
WITH_PYTHON = [page for page in PAGES if blocks(page, 'python')]


def is_config(block: str) -> bool:
    return 'custom_imports' in block


def test_all_pages_are_read():
    assert {'README.md', 'docs/convert.md', 'docs/layers.md', *SLOW} < {*WITH_PYTHON}


@pytest.mark.parametrize(
    'page', [pytest.param(p, marks=[pytest.mark.slow] if p in SLOW else []) for p in WITH_PYTHON]
)
def test_python_blocks(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    namespace: dict = {}
    for number, block in enumerate(blocks(page, 'python')):
        if is_config(block):
            file = tmp_path / f'config_{number}.py'
            file.write_text(block)
            config = Config.fromfile(file)
            assert 'NC' in str(config.model)
        else:
            exec(compile(block, f'{page}, Python block {number}', 'exec'), namespace)
