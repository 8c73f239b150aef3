"""Train with many wrong configs, and count how each training ends.

    python tests/reliability/config_fuzz.py --seed 7 --edits 400

Every edit is a mistake at a random key of a digits config of one of the four tasks. A training has
a few images and two or three iterations. It either runs, or prints one sentence; a traceback, a
hang and files that a failed start leaves are faults. Needs a system with fork: the libraries are
imported once, and each training is a fork of this process.
"""

from __future__ import annotations

import argparse
import collections
import inspect
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[2] / 'tools'))

import mmdet
import mmpretrain
import mmseg
import torch
import train  # tools/train.py
from config_edits import Edit, edits
from mmengine.config import Config
from mmengine.runner import Runner

from nc_plugins.datasets.digits import write_digits

ROOT = Path(__file__).resolve().parents[2]
TRAIN_THREE = {
    'train_cfg': {'type': 'IterBasedTrainLoop', 'max_iters': 3, 'val_interval': 2},
    'default_hooks.logger.interval': 1,
    'log_processor.by_epoch': False,
    'default_hooks.checkpoint.by_epoch': False,
}
# The config of each task, and what makes its training short.
TASKS = {
    'classification/resnet18_nc_1xb2_digits.py': {
        'train_cfg.max_epochs': 1,
        'model.backbone.stem_channels': 8,
        'model.backbone.base_channels': 8,
        'model.head.in_channels': 64,
        'default_hooks.logger.interval': 1,
    },
    'mask_rcnn/mask-rcnn_r18_fpn_nc-all_1xb2_digits.py': {
        'train_cfg.max_epochs': 1,
        'default_hooks.logger.interval': 1,
    },
    'deeplab/deeplabv3plus_r18-d8_nc_1xb2_digits.py': TRAIN_THREE,
    'cyclegan/cyclegan_resnet2-w16_nc_1xb8-10e_digits.py': {
        'train_cfg.max_epochs': 1,
        'train_dataloader.batch_size': 2,
        'default_hooks.logger.interval': 1,
    },
}
PACKAGES = (mmdet, mmpretrain, mmseg)  # imported here, so that no fork has to
MEMORY = 4 * 2**30  # bytes that a training may take in addition
RESULTS = ('*.pth', '*.partial', 'record.json', 'last_checkpoint')  # not of a failed start
FAULTS = ('traceback', 'hang', 'crash', 'leftovers')


class Outcome(NamedTuple):
    """How a training ended: 'ran', 'sentence' or one of the ``FAULTS``, and its output."""

    kind: str
    text: str


def small_config(name: str) -> dict:
    """The keys of a config that a training reads, with two or three iterations of training."""
    cfg = Config.fromfile(ROOT / 'configs' / name)
    cfg.merge_from_dict(TASKS[name])
    known = set(train_keys())
    return {key: value for key, value in cfg.to_dict().items() if key in known}


def train_keys() -> list[str]:
    return [*inspect.signature(Runner.__init__).parameters, 'custom_imports', 'data_command']


def write_data(folder: Path) -> None:
    """The digits in ``folder``/data/digits: ten images, four scenes and four pairs."""
    write_digits(folder / 'data/digits', scenes_train=4, scenes_val=2)
    images = folder / 'data/digits'
    for parent in [*images.glob('folder/*/*'), *images.glob('unpaired/*')]:
        for path in sorted(parent.iterdir())[1 if parent.parent.parent.name == 'folder' else 4 :]:
            path.unlink()


def run(edit: Edit, folder: Path, seconds: float) -> Outcome:
    """Train with an edited config in a fork, in the current folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    config, work_dir, output = folder / 'config.py', folder / 'work', folder / 'output.txt'
    config.write_text(''.join(f'{key} = {value!r}\n' for key, value in edit.config.items()))
    child = os.fork()
    if child == 0:
        _train_and_exit(config, work_dir, output)
    status = _wait(child, seconds)
    text = output.read_text(errors='replace')
    lines = [line for line in text.splitlines() if line.startswith('error: ')]
    if status is None:
        return Outcome('hang', text)
    if 'Traceback (most recent call last)' in text:
        return Outcome('traceback', text)
    if status == 0:
        return Outcome('ran', text)
    if status != 1 or len(lines) != 1:
        return Outcome('crash', f'exit status {status}\n{text}')
    if not (work_dir / 'history.jsonl').exists():  # no iteration has ended
        left = [path for name in RESULTS for path in work_dir.rglob(name)]
        if left:
            return Outcome('leftovers', f'{lines[0]}\n{left}')
    return Outcome('sentence', lines[0])


def _train_and_exit(config: Path, work_dir: Path, output: Path) -> None:
    """In the child process: what `python tools/train.py` does. Does not return."""
    code = 1
    try:
        os.setsid()
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        code = train.main([str(config), '--work-dir', str(work_dir)])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int, seconds: float) -> int | None:
    """The exit status of the process, or None if it was killed after ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--edits', type=int, default=40)
    parser.add_argument('--timeout', type=float, default=120, help='seconds for one training')
    parser.add_argument('--task', default='', help='only configs with this in their path')
    parser.add_argument('--only', type=int, nargs='*', help='only the edits with these numbers')
    args = parser.parse_args()

    torch.set_num_threads(1)
    os.environ['OMP_NUM_THREADS'] = '1'
    names = [name for name in TASKS if args.task in name]
    streams = [edits(small_config(n), random.Random(f'{args.seed} {n}')) for n in names]
    counts, start = collections.Counter(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_data(Path(folder))
        for number in range(args.edits):
            edit = next(streams[number % len(names)])
            if args.only and number not in args.only:
                continue
            outcome = run(edit, Path(folder, 'run'), args.timeout)
            counts[outcome.kind] += 1
            text = outcome.text if outcome.kind == 'sentence' else outcome.text[-1500:]
            shown = '' if outcome.kind == 'ran' else f'\n    {text}'
            task = names[number % len(names)].partition('/')[0]
            print(f'{number} {outcome.kind} [{task}] {edit.words}{shown}', flush=True)
        os.chdir('/')
    print(', '.join(f'{counts[kind]} {kind}' for kind in ('ran', 'sentence', *FAULTS)), end='')
    print(f' in {time.monotonic() - start:.0f} s, seed {args.seed}')
    return int(any(counts[kind] for kind in FAULTS))


if __name__ == '__main__':
    sys.exit(main())
