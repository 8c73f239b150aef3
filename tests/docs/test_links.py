"""Links, anchors and paths of the pages."""

import re

import pytest

from .pages import PAGES, ROOT, anchors, code_spans, exists, links

FOLDERS = (
    'benchmarks',
    'configs',
    'docs',
    'nc_plugins',
    'requirements',
    'studies',
    'tests',
    'tools',
)
NOT_IN_THE_REPOSITORY = {
    'docs/_build': 'written by make docs',
    'nc_plugins/.mim': 'in the wheel',
    'nc_plugins/wheels': 'in the cache folder of the user',
}


def test_all_pages_are_read():
    assert {'README.md', 'docs/start/mmdet.md', 'docs/results/digits/report.md'} < {*PAGES}
    assert 'configs/deeplab/README.md' in PAGES


def test_what_is_missing_is_found():
    assert exists('configs/{deeplab,cyclegan}/README.md')
    assert not exists('configs/{deeplab,no_such_folder}/README.md')
    assert 'how-auto-chooses' in anchors('docs/backends.md')
    assert 'no-such-heading' not in anchors('docs/backends.md')


@pytest.mark.parametrize('page', PAGES)
def test_links_and_anchors(page):
    for target in links(page):
        path, _, anchor = target.partition('#')
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f'{target}: there is no such file'
        if anchor:
            other = file.resolve().relative_to(ROOT).as_posix()
            assert anchor in anchors(other), f'{target}: {other} has no such heading'


@pytest.mark.parametrize('page', PAGES)
def test_paths(page):
    for span in code_spans(page):
        for word in re.findall(r'[\w./*{},-]+', span):
            name = word.rstrip('.,')
            is_path = name.split('/')[0] in FOLDERS and '/' in name
            is_pattern = re.search(r'[*{].*\.py$', name)
            if (is_path or is_pattern) and name not in NOT_IN_THE_REPOSITORY:
                assert exists(name, 'configs', 'configs/*'), f'{span}: no file matches {name}'
