import csv
import os
import signal
import subprocess
import sys
import threading
import time
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import compare as tool
import psutil
import pytest
from filelock import FileLock

from nc_plugins.records import LOCK
from nc_plugins.report import jobs, read_run

ROOT = Path(__file__).resolve().parents[2]
COMPARE = ROOT / 'tools' / 'compare.py'
FAKE = Path(__file__).with_name('fake_train.py')
CORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'base.py').write_text('lr = 0.1\n')
    for name in ('gn', 'nc'):
        (tmp_path / f'{name}.py').write_text(f"_base_ = './base.py'\nnorm = '{name}'\n")
    return tmp_path


@pytest.fixture
def compare(folder, monkeypatch, capsys):
    """Calls tools/compare.py in this process and in ``folder``."""
    monkeypatch.chdir(folder)

    def call(*args):
        code = tool.main([*args, '--train-script', str(FAKE)])
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    return call


def rows(folder):
    with (folder / 'out' / 'results.csv').open() as file:
        return list(csv.DictReader(file))


def lines(text, words):
    return [line for line in text.splitlines() if words in line]


def test_runs_reports_and_reuses(folder, compare):
    first = compare('gn.py', 'nc.py', '--seeds', '2', '--out', 'out', '--title', 'Two')
    assert first.returncode == 0, first.stdout + first.stderr
    assert '[4/4] nc seed 1, epoch 2/3: loss 1.0000, top-1 accuracy (%) 53.00' in first.stdout
    assert first.stdout.rstrip().endswith('report: out/report.html')
    html = (folder / 'out' / 'report.html').read_text()
    assert 'model.<wbr>norm' in html and "'GN'" in unescape(html)  # from the saved configs
    page = (folder / 'out' / 'report.md').read_text()
    # Accuracies of the stub: 43 and 44 for gn, 53 and 54 for nc.
    assert '| nc | 2 | 53.50 ± 0.71 |' in page
    assert page.startswith('# Two\n')
    assert '--seeds 2 --out out --title Two' in page
    assert (folder / 'out' / 'curves.png').stat().st_size > 10_000
    kept = rows(folder)
    assert [(r['config'], r['seed'], r['status']) for r in kept] == [
        ('gn.py', '0', 'finished'),
        ('gn.py', '1', 'finished'),
        ('nc.py', '0', 'finished'),
        ('nc.py', '1', 'finished'),
    ]
    script = os.path.relpath(FAKE, folder)  # not the absolute path of this machine
    assert f'python {script} nc.py --work-dir out/runs/nc/seed1 ' in kept[3]['command']
    assert [r['accuracy/top1'] for r in kept] == ['43', '44', '53', '54']

    # A third seed is new, the others stay; a config edited through its base is run again.
    (folder / 'nc.py').write_text("_base_ = './other.py'\nnorm = 'nc'\n")
    (folder / 'other.py').write_text('lr = 0.2\n')
    second = compare('gn.py', 'nc.py', '--seeds', '3', '--out', 'out')
    assert second.returncode == 0, second.stdout + second.stderr
    reused = lines(second.stdout, 'reusing the finished run')
    assert [line.split(':')[0] for line in reused] == ['[1/6] gn seed 0', '[2/6] gn seed 1']
    assert len(lines(second.stdout, 'to run (never started)')) == 2
    stale = lines(second.stdout, 'has another config or options')
    assert [line.split(':')[0] for line in stale] == ['[4/6] nc seed 0', '[5/6] nc seed 1']
    assert len(rows(folder)) == 6
    # Nothing is deleted.
    assert len(list((folder / 'out/runs/nc').glob('seed0.old-*/record.json'))) == 1

    (folder / 'base.py').write_text('lr = 0.3\n')
    third = compare('gn.py', 'nc.py', '--out', 'out')
    assert len(lines(third.stdout, '[1/2] gn seed 0: to run (the finished run')) == 1
    assert len(lines(third.stdout, '[2/2] nc seed 0: reusing')) == 1


@pytest.mark.parametrize(
    ('program', 'command'),
    [('tools/compare.py', 'python tools/compare.py gn.py'), ('nc compare', 'nc compare gn.py')],
)
def test_the_report_has_the_command(program, command, folder, compare, monkeypatch):
    monkeypatch.setattr(sys, 'argv', [program])
    assert compare('gn.py', '--out', 'out').returncode == 0
    assert f'\n{command} --out out' in (folder / 'out' / 'report.md').read_text()


def test_one_failure_is_missing_and_the_others_go_on(folder, compare):
    failing = ('--cfg-options', 'fake.fail_seed=1')
    done = compare('gn.py', 'nc.py', '--seeds', '2', '--out', 'out', *failing)
    assert done.returncode == 1
    assert 'missing: gn seed 1, nc seed 1' in done.stderr
    assert len(lines(done.stdout, 'FAILED, exit code 1, unfinished')) == 2
    assert '    RuntimeError: the fake training was told to fail' in done.stdout
    page = (folder / 'out' / 'report.md').read_text()
    assert '| gn | 1 of 2 (1 missing) | 43.00 ± - |' in page
    assert '| gn | 1 | missing: exit code 1, unfinished, last seen at epoch 1/3 |' in page
    assert [r['status'] for r in rows(folder)] == ['finished', 'missing', 'finished', 'missing']

    # The same call again runs only the missing ones.
    again = compare('gn.py', 'nc.py', '--seeds', '2', '--out', 'out', *failing)
    assert again.returncode == 1
    assert len(lines(again.stdout, 'reusing')) == 2
    assert len(lines(again.stdout, 'to run (unfinished, last seen at epoch 1/3)')) == 2


def test_configs_of_another_task_are_compared_apart(folder, compare):
    """The validation data decide, not the metrics."""
    for data in ('a', 'b'):
        for name in ('gn', 'nc'):
            loader = f"dict(dataset=dict(type='Folder', data_root='{data}'))"
            (folder / f'{data}_{name}.py').write_text(f'val_dataloader = {loader}\n')
    configs = ['a_gn.py', 'b_gn.py', 'a_nc.py', 'b_nc.py']
    done = compare(*configs, '--out', 'out')
    assert done.returncode == 0, done.stdout + done.stderr
    page = (folder / 'out' / 'report.md').read_text()
    assert [line for line in page.splitlines() if line.startswith('## ')] == [
        '## a_gn against a_nc',
        '## b_gn against b_nc',
        '## How it was made',
    ]
    assert len(lines(done.stdout, 'config  ')) == 2  # a table for each


def test_success_without_a_record_is_missing(folder, compare):
    done = compare('gn.py', '--out', 'out', '--cfg-options', 'fake.silent=1')
    assert done.returncode == 1
    assert 'does the config have the hook RunRecordHook?' in done.stdout
    assert '| gn | 0 of 1 (1 missing) | missing |' in (folder / 'out/report.md').read_text()


def test_jobs_share_the_processor(folder, compare):
    start = time.monotonic()
    options = ('--cfg-options', 'fake.sleep=1')
    done = compare('gn.py', 'nc.py', '--out', 'out', '--jobs', '2', *options)
    assert done.returncode == 0, done.stdout + done.stderr
    started, ended = (done.stdout.index(words) for words in ('nc seed 0: starting', 'finished in'))
    assert started < ended, f'one after the other, {time.monotonic() - start:.0f} s'
    assert [r['threads'] for r in rows(folder)] == [str(max(1, CORES // 2))] * 2
    assert 'Up to 2 runs shared the machine' in (folder / 'out/report.md').read_text()


def wait_for(file, text=''):
    """Wait until ``file`` exists and contains ``text``."""
    deadline = time.monotonic() + 120
    while not (file.exists() and text in file.read_text()):
        assert time.monotonic() < deadline, f'no {file} with {text!r}'
        time.sleep(0.1)


@pytest.fixture
def started(folder):
    """Starts tools/compare.py as a process, and waits for the first output of a training."""
    processes = []

    def start(*args, training):
        process = subprocess.Popen(
            [sys.executable, COMPARE, *args, '--train-script', FAKE],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A background job of a script ignores SIGINT, and its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        processes.append(process)
        log = folder / 'out' / 'runs' / training / 'output.log'
        wait_for(log, '\n')
        return process, int(log.read_text().split()[-1])

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_trainings_and_still_reports(folder, compare, started, how):
    assert compare('gn.py', '--out', 'out').returncode == 0
    options = ('--cfg-options', 'fake.sleep=20')
    # The finished run above has other options. It must not appear as a result of these.
    process, training = started('nc.py', 'gn.py', '--out', 'out', *options, training='nc/seed0')
    process.send_signal(how)
    time.sleep(0.05)
    process.send_signal(how)  # make passes the signal on, so it arrives twice
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert 'interrupted: the trainings have ended' in out
    assert [r['status'] for r in rows(folder)] == ['missing', 'missing']
    assert not psutil.pid_exists(training)
    # The folder of a training that did not start is unchanged.
    assert (folder / 'out/runs/gn/seed0/record.json').exists()


def test_after_a_kill_the_training_ends_and_the_next_call_continues_it(folder, compare, started):
    go, run = folder / 'go', folder / 'out/runs/nc/seed1'
    options = [f'fake.wait1={go}', 'fake.before=1']
    args = ['nc.py', '--seeds', '2', '--out', 'out', '--cfg-options', *options]
    process, training = started(*args, training='nc/seed1')
    wait_for(run / 'last_checkpoint')
    process.kill()
    process.wait()
    # Not before the killed program's training has ended, or that would finish too.
    threading.Timer(3, go.touch).start()
    done = compare(*args)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '[1/2] nc seed 0: reusing the finished run' in done.stdout
    assert len(lines(done.stdout, '[2/2] nc seed 1: going on from epoch_1.pth')) == 1
    assert [r['status'] for r in rows(folder)] == ['finished', 'finished']
    assert '--resume' not in rows(folder)[1]['command']  # it repeats the whole training
    assert not psutil.pid_exists(training)
    assert [x for x, _ in read_run('nc.py', 1, run).validations] == [1, 2, 3]
    output = (run / 'output.log').read_text()
    assert 'which started this program, has ended' in output
    assert output.count('training nc.py seed 1') == 2


def test_a_training_that_ends_while_compare_waits_for_it_is_reused(folder, compare):
    assert compare('gn.py', '--out', 'out').returncode == 0
    run = folder / 'out/runs/gn/seed0'
    record = (run / 'record.json').read_bytes()
    (run / 'record.json').unlink()
    lock = FileLock(run / LOCK, thread_local=False)
    lock.acquire()

    def end():
        (run / 'record.json').write_bytes(record)
        lock.release()

    threading.Timer(1, end).start()
    done = compare('gn.py', '--out', 'out')
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(lines(done.stdout, '[1/1] gn seed 0: reusing the finished run')) == 1
    assert [path.name for path in run.parent.iterdir()] == ['seed0']
    assert (run / 'output.log').read_text().count('training gn.py') == 1


def test_a_folder_is_renamed_only_when_no_training_writes_to_it(folder, compare):
    runs = folder / 'out' / 'runs' / 'gn'
    (runs / 'seed0').mkdir(parents=True)
    lock, names = FileLock(runs / 'seed0' / LOCK, thread_local=False), []
    lock.acquire()

    def end():
        names.extend(path.name for path in runs.iterdir())
        lock.release()

    threading.Timer(1, end).start()
    assert compare('gn.py', '--out', 'out').returncode == 0
    assert names == ['seed0']
    assert len(list(runs.glob('seed0.old-*'))) == 1


def test_a_folder_in_use_is_left_alone(folder, compare, monkeypatch):
    monkeypatch.setattr(jobs, '_LOCK_SECONDS', 0.1)
    run = folder / 'out' / 'runs' / 'gn' / 'seed0'
    run.mkdir(parents=True)
    with FileLock(run / LOCK):
        done = compare('gn.py', 'nc.py', '--out', 'out')
    assert done.returncode == 1
    (line,) = lines(done.stdout, '[1/2] gn seed 0: FAILED, another training writes to ')
    assert line.endswith('seed0: wait for it or end it, then run this command again')
    assert [r['status'] for r in rows(folder)] == ['missing', 'finished']
    assert [path.name for path in run.parent.iterdir()] == ['seed0']


@pytest.mark.slow
def test_a_training_in_several_processes(folder, compare):
    several = ('--launcher', 'pytorch', '--processes', '2')
    done = compare('gn.py', '--out', 'out', *several)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = rows(folder)
    assert 'launch.py --standalone --nproc-per-node 2 ' in row['command']
    assert ' --launcher pytorch --cfg-options ' in row['command']
    assert row['threads'] == str(max(1, CORES // 2))
    assert 'reusing' in compare('gn.py', '--out', 'out', *several).stdout
    # Another number of processes is another batch size.
    assert 'reusing' not in compare('gn.py', '--out', 'out').stdout


def test_two_at_once_in_one_folder_are_refused(folder, compare):
    (folder / 'out').mkdir()
    with FileLock(folder / 'out' / '.lock'):
        done = compare('gn.py', '--out', 'out')
    assert (done.returncode, done.stderr) == (2, 'error: another compare.py is running in out.\n')
    assert not (folder / 'out' / 'runs').exists()


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['gn.py', 'none.py'], 'there is no config file none.py.'),
        (['gn.py', 'sub/gn.py'], 'gn.py and sub/gn.py have the same file name'),
        (['gn.py', 'gn.py'], 'gn.py and gn.py have the same file name'),
        (['gn.py', '--seeds', '0'], '--seeds must be an integer of at least 1, got 0.'),
        (['gn.py', '--jobs', '-1'], '--jobs must be an integer of at least 1, got -1.'),
        (['gn.py', '--processes', '2'], '--processes 2 needs --launcher pytorch.'),
        (['gn.py', '--cfg-options', 'lr'], "--cfg-options must be KEY=VALUE, got 'lr'."),
        (['gn.py', '--cfg-options', 'randomness.seed=3'], 'cannot set randomness.seed'),
        (['gn.py', '--cfg-options', 'work_dir=x'], 'cannot set work_dir'),
        (['broken.py'], 'config broken.py does not load: '),
        (['no_base.py'], 'config no_base.py does not load: '),
    ],
)
def test_a_wrong_command_line_writes_nothing(folder, compare, args, message):
    (folder / 'sub').mkdir()
    (folder / 'sub' / 'gn.py').write_text('lr = 1\n')
    (folder / 'broken.py').write_text('lr = (\n')
    (folder / 'no_base.py').write_text("_base_ = './nowhere.py'\n")
    done = compare(*args, '--out', 'out')
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert message in done.stderr
    assert not (folder / 'out').exists()


def test_out_must_be_a_folder(folder, compare):
    (folder / 'out').write_text('mine')
    done = compare('gn.py', '--out', 'out')
    assert (done.returncode, done.stderr) == (
        2,
        'error: --out must be a folder, got the file out.\n',
    )
    assert (folder / 'out').read_text() == 'mine'
