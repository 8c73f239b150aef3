"""The screen of tools/compare.py, on a terminal and in a file."""

import io

import pytest

from nc_plugins.records import Start, TrainingLoss, append_event
from nc_plugins.report import Screen, progress, read_run
from nc_plugins.report.progress import duration, fraction_done, live_words


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def run(tmp_path):
    """A training at iteration 18 of 30. Its history ends with the first of three epochs."""
    append_event(tmp_path, Start(max_epochs=3, max_iters=30))
    append_event(tmp_path, TrainingLoss(1, 10, {'loss': 2.0}))
    log = tmp_path / '20250101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(
        '{"loss": 2.0, "epoch": 1, "iter": 10, "step": 10}\n'
        '{"loss": 1.25, "epoch": 2, "iter": 18, "step": 18}\n'
        '{"accuracy/top1": 50.0, "step": 1}\n'
        '{"loss": 1.0, "epo'
    )
    return read_run('gn.py', 0, tmp_path)


def test_a_terminal_shows_lines_and_a_bar_for_each_training(run, monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('COLUMNS', '100')
    terminal = Terminal()
    screen = Screen(terminal)
    with screen.bars:
        screen.line('[1/2] [bold] :smile: gn seed 0: starting ' + 20 * 'long ')
        screen.show({'[1/2] gn seed 0': run})
        screen.bars.refresh()
        shown = terminal.getvalue()
        screen.show({})
    assert screen.width == 100
    assert '[1/2] [bold] :smile: gn seed 0: starting ' + 20 * 'long ' in shown
    assert '[1/2] gn seed 0 ' in shown and ' 60%' in shown
    assert 'epoch 2, iteration 18, loss 1.2500' in shown
    assert not screen.bars.tasks


def test_a_file_gets_lines_and_after_silence_the_progress(run, monkeypatch):
    file = io.StringIO()
    screen = Screen(file)
    with screen.bars:
        screen.line('x' * 200)
        screen.show({'[1/2] gn seed 0': run})
        assert file.getvalue() == 'x' * 200 + '\n'
        monkeypatch.setattr(progress, 'SILENCE', -1.0)
        screen.show({'[1/2] gn seed 0': run, '[2/2] nc seed 0': run})
        screen.show({})
    words = 'epoch 2, iteration 18, loss 1.2500'
    line = f'[1/2] gn seed 0: {words} | [2/2] nc seed 0: {words}\n'
    assert file.getvalue() == 'x' * 200 + '\n' + line
    assert screen.width is None


def test_the_fraction_done_is_that_of_history_or_log(run, tmp_path):
    assert fraction_done(run) == 0.6
    run.train.append((3, 1.0))
    assert fraction_done(run) == 1.0
    (tmp_path / 'new').mkdir()
    new = read_run('gn.py', 0, tmp_path / 'new')
    assert (fraction_done(new), live_words(new)) == (0.0, 'starting')


@pytest.mark.parametrize(
    ('seconds', 'words'), [(42.4, '42 s'), (180, '3 min'), (7500, '2 h 05 min')]
)
def test_duration(seconds, words):
    assert duration(seconds) == words
