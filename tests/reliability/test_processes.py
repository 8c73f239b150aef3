"""Processes that are killed, and the command lines that start several of them."""

import json
import os
import re
import shlex
import signal
import socket
import sys
import time
from pathlib import Path

import launch
import psutil
import pytest
import torch
import train
from mmengine.config import Config
from mmengine.registry import TRANSFORMS

from nc_plugins.engine.distributed import processes
from nc_plugins.engine.safe_loading import load_checkpoint
from nc_plugins.engine.usage import UsageError

TOOLS = Path(__file__).parents[2] / 'tools'
LAUNCH = (sys.executable, TOOLS / 'launch.py', '--standalone', '--nproc-per-node', '2')
WITH_WORKER = """
train_dataloader['num_workers'] = 1
train_dataloader['persistent_workers'] = True
train_dataloader['dataset']['pipeline'] = [
    dict(type='LoadImageFromFile'),
    dict(type='KillThisProcess', call={call}),
    dict(type='PackInputs'),
]
"""


@TRANSFORMS.register_module(force=True)
class KillThisProcess:
    def __init__(self, call):
        self.left = call

    def __call__(self, results):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return results


@pytest.mark.parametrize('call', [1, 25])
def test_a_killed_data_loading_worker_gives_a_sentence(call, config, tmp_path, capsys):
    path, work_dir = config(more=WITH_WORKER.format(call=call)), tmp_path / 'work'
    assert train.main([path, '--work-dir', str(work_dir)]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('error: the data loading process ')
    assert error.endswith('--resume continues it')
    if call == 25:  # in the second epoch
        assert 'optimizer' in load_checkpoint(work_dir / 'epoch_1.pth')


def ended(pids, seconds=20):
    """True if the processes end within ``seconds``."""
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return not psutil.wait_procs(processes, timeout=seconds)[1]


@pytest.mark.parametrize(
    ('end', 'code', 'sentence'),
    [
        ('os.kill(os.getpid(), 9)', 137, r'error: process 1 \(pid \d+\) was killed by SIGKILL'),
        ('sys.exit("no such thing")', 1, 'error: process 1 ended with exit code 1, and the others'),
    ],
)
def test_when_a_process_ends_the_launcher_ends_the_others(end, code, sentence, run, tmp_path):
    script = tmp_path / 'script.py'
    rank_1 = f'os.environ["RANK"] == "1" and {end}'
    script.write_text(f'import os, sys, time\nprint("pid", os.getpid())\n{rank_1}\ntime.sleep(100)')
    found, output = run(*LAUNCH, script, PYTHONUNBUFFERED='1')
    assert found == code, output
    assert re.match(sentence, output.strip().splitlines()[-1])
    assert 'Traceback' not in output
    pids = [int(line.split()[1]) for line in output.splitlines() if line.startswith('pid ')]
    assert len(pids) == 2 and ended(pids)


def test_a_number_of_processes_that_is_none_gives_a_sentence(capsys):
    assert launch.main(['--nproc-per-node', 'many', 'script.py']) == 2
    assert capsys.readouterr().err == 'error: Unsupported nproc_per_node value: many\n'


def test_a_port_in_use_gives_a_sentence(capsys):
    with socket.create_server(('', 0)) as server:
        port = str(server.getsockname()[1])
        meet = ['--nnodes', '2', '--master-addr', '127.0.0.1', '--master-port', port]
        assert launch.main([*meet, '--nproc-per-node', '1', 'script.py']) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('error: check PORT and MASTER_ADDR') and f'port: {port}' in error


@pytest.mark.slow
@pytest.mark.parametrize(
    ('whom', 'how', 'code', 'sentence'),
    [
        ('rank 0', signal.SIGKILL, 137, r'error: process 0 \(pid \d+\) was killed by SIGKILL'),
        ('rank 1', signal.SIGKILL, 137, r'error: process 1 \(pid \d+\) was killed by SIGKILL'),
        ('terminal', signal.SIGINT, 130, 'ended by SIGINT'),
        ('launcher', signal.SIGTERM, 143, 'ended by SIGTERM'),
        ('launcher', signal.SIGKILL, -9, r'process \d+, which started this program, has ended'),
    ],
)
def test_no_process_of_a_training_remains(whom, how, code, sentence, config, start, tmp_path):
    work_dir, options = tmp_path / 'work', ['--cfg-options', 'train_cfg.max_epochs=10000']
    options += ['train_dataloader.num_workers=1', 'train_dataloader.persistent_workers=True']
    script = TOOLS / 'dist_train.sh'
    launcher = start('bash', script, config(), 2, '--work-dir', work_dir, *options)
    deadline = time.monotonic() + 120
    while not (work_dir / 'epoch_2.pth').exists():
        assert launcher.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    children = psutil.Process(launcher.pid).children()
    ranks = sorted(child.pid for child in children if 'train.py' in ' '.join(child.cmdline()))
    family = [child.pid for child in psutil.Process(launcher.pid).children(recursive=True)]
    assert len(ranks) == 2 and len(family) >= 4  # with the data loading workers
    if whom == 'terminal':
        os.killpg(launcher.pid, how)
    else:
        os.kill({'launcher': launcher.pid, 'rank 0': ranks[0], 'rank 1': ranks[1]}[whom], how)
    output = ''.join(launcher.communicate(timeout=60))
    assert launcher.returncode == code
    assert re.match(sentence, output.strip().splitlines()[-1]), output[-3000:]
    assert 'Traceback' not in output
    assert ended(family)


@pytest.mark.slow
def test_two_processes_evaluate_like_one(config, run, tmp_path):
    path, work_dir = config(), tmp_path / 'work'
    assert train.main([path, '--work-dir', str(work_dir)]) == 0
    trained = (work_dir / 'record.json').read_text()
    script, checkpoint = TOOLS / 'dist_test.sh', work_dir / 'epoch_2.pth'
    code, output = run('bash', script, path, checkpoint, 2, '--work-dir', tmp_path / 'test')
    assert code == 0, output[-3000:]
    (scalars,) = (tmp_path / 'test').glob('*/*.json')
    tested = json.loads(scalars.read_text())
    for key, value in json.loads(trained)['metrics'].items():
        assert tested[key] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_a_launcher_must_have_started_the_process(launcher, config, tmp_path, capsys, monkeypatch):
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.delenv(name, raising=False)
    arguments = [config(), '--work-dir', str(tmp_path / 'work'), '--launcher', launcher]
    assert train.main(arguments) == 1
    error = capsys.readouterr().err
    assert f'error: --launcher {launcher} needs the environment variable ' in error


@pytest.mark.parametrize(
    'message',
    [
        '[/gloo/transport/tcp/pair.cc:538] Read error [127.0.0.1]:25820: Connection reset by peer',
        '[/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:34189',
        'NCCL error: remote process exited or there was a network error, NCCL version 2.28.9',
    ],
)
def test_a_lost_connection_gives_a_sentence(message):
    sentence = 'another process of this training has ended'
    with pytest.raises(UsageError, match=sentence), processes(Config()):
        raise RuntimeError(message)


def test_another_error_stays():
    with pytest.raises(RuntimeError, match=r'^sizes of tensors must match$'), processes(Config()):
        raise RuntimeError('sizes of tensors must match')


def test_there_must_be_a_gpu_for_each_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setenv('RANK', '2')
    monkeypatch.setenv('LOCAL_RANK', '2')
    sentence = 'more processes on this machine than GPUs, which are 2'
    with pytest.raises(UsageError, match=sentence), processes(Config(dict(launcher='pytorch'))):
        pass


# The arguments of each script, its environment, and the arguments of torchrun or srun.
COMMANDS = {
    'dist_train.sh': (
        "c.py 4 --amp --work-dir 'a b'",
        '',
        '--standalone --nproc-per-node 4 tools/train.py c.py --launcher pytorch --amp '
        "--work-dir 'a b'",
    ),
    'dist_test.sh': (
        'c.py c.pth 8 --out o.pkl',
        'NNODES=2 NODE_RANK=1 MASTER_ADDR=host PORT=29511',
        '--nnodes 2 --node-rank 1 --master-addr host --master-port 29511 --nproc-per-node 8 '
        'tools/test.py c.py c.pth --launcher pytorch --out o.pkl',
    ),
    'slurm_train.sh': (
        "gpus name c.py --work-dir 'a b'",
        "GPUS=4 CPUS_PER_TASK=2 SRUN_ARGS='--quiet --time 1:00'",
        '--partition gpus --job-name name --gres gpu:4 --ntasks 4 --ntasks-per-node 4 '
        '--cpus-per-task 2 --kill-on-bad-exit=1 --quiet --time 1:00 '
        "tools/train.py c.py --launcher slurm --work-dir 'a b'",
    ),
    'slurm_test.sh': (
        'gpus name c.py c.pth',
        'GPUS=16',
        '--partition gpus --job-name name --gres gpu:8 --ntasks 16 --ntasks-per-node 8 '
        '--cpus-per-task 5 --kill-on-bad-exit=1 tools/test.py c.py c.pth --launcher slurm',
    ),
}


@pytest.mark.parametrize('script', sorted(COMMANDS))
def test_the_shell_scripts_take_openmmlabs_arguments(script, run, tmp_path):
    assert {path.name for path in TOOLS.glob('*.sh')} == COMMANDS.keys()
    arguments, env, wanted = map(shlex.split, COMMANDS[script])
    env = dict(setting.split('=', 1) for setting in env)
    for program in ('python', 'srun'):  # print the arguments, one a line
        (tmp_path / program).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (tmp_path / program).chmod(0o755)
    path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
    code, output = run('bash', TOOLS / script, *arguments, PYTHON='python', PATH=path, **env)
    assert code == 0, output
    words = output.replace(f'{TOOLS}/', 'tools/').splitlines()
    assert [w for w in words if w not in ('python', '-u', 'tools/launch.py')] == wanted
    code, output = run('bash', TOOLS / script, 'c.py')
    assert (code, output.split()[0]) == (2, 'usage:')
