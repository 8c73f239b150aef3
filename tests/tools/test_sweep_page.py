"""The page that the sweeps write."""

import json
from datetime import date
from types import SimpleNamespace

import pytest
from sweep_page import fill, sentence, total

COLUMNS = ['network', 'norms', 'step']


def text(rows, origin):
    return f'# Page\n\n{len(rows)} networks, {total(rows, 1)} norms.\n\n{origin}\n'


def test_a_stopped_sweep_goes_on_and_repeats_nothing(tmp_path):
    page, called = tmp_path / 'page.md', []

    def job(name, *cells):
        return name, lambda: called.append(name) or list(cells)

    def stop():
        raise KeyboardInterrupt

    first = [job('a', '2', 'trains'), ('bare', lambda: None), ('b', stop)]
    with pytest.raises(KeyboardInterrupt):
        fill(page, COLUMNS, first, text, [json])
    assert page.read_text().splitlines()[2] == '1 networks, 2 norms.'
    failed = sentence(ValueError('x | y\nz'))
    again = [job('a', '9', 'again'), job('b', '', failed), job('c', '3', 'ok')]
    begun = f'2026-01-02 (json {json.__version__}; CPU, random weights)'
    page.write_text(page.read_text().replace(str(date.today()), begun[:10]))
    fill(page, COLUMNS, again, text, [json])
    assert called == ['a', 'b', 'c']
    assert page.read_text().splitlines() == [
        '# Page',
        '',
        '3 networks, 5 norms.',
        '',
        begun,
        '',
        '| network | norms | step |',
        '| --- | --- | --- |',
        '| a | 2 | trains |',
        '| b |  | ValueError: x / y z |',
        '| c | 3 | ok |',
    ]


def test_rows_of_other_versions_are_not_filled_up(tmp_path):
    page, job = tmp_path / 'page.md', ('a', lambda: ['2', 'trains'])
    package = SimpleNamespace(__name__='timm', __version__='1.0')
    fill(page, COLUMNS, [job], text, [package])
    before = page.read_text()
    package.__version__ = '1.1'
    with pytest.raises(ValueError, match=r'page\.md has rows of other versions than \(timm 1\.1; '):
        fill(page, COLUMNS, [job], text, [package])
    assert page.read_text() == before
