"""The page that the sweeps write."""

import pytest
from sweep_page import fill, sentence, total

COLUMNS = ['network', 'norms', 'step']


def text(rows):
    return f'# Page\n\n{len(rows)} networks, {total(rows, 1)} norms.\n'


def test_a_stopped_sweep_goes_on_and_repeats_nothing(tmp_path):
    page, called = tmp_path / 'page.md', []

    def job(name, *cells):
        return name, lambda: called.append(name) or list(cells)

    def stop():
        raise KeyboardInterrupt

    first = [job('a', '2', 'trains'), ('bare', lambda: None), ('b', stop)]
    with pytest.raises(KeyboardInterrupt):
        fill(page, COLUMNS, first, text)
    assert page.read_text().splitlines()[2] == '1 networks, 2 norms.'
    failed = sentence(ValueError('x | y\nz'))
    fill(page, COLUMNS, [job('a', '9', 'again'), job('b', '', failed), job('c', '3', 'ok')], text)
    assert called == ['a', 'b', 'c']
    assert page.read_text().splitlines() == [
        '# Page',
        '',
        '3 networks, 5 norms.',
        '',
        '| network | norms | step |',
        '| --- | --- | --- |',
        '| a | 2 | trains |',
        '| b |  | ValueError: x / y z |',
        '| c | 3 | ok |',
    ]
