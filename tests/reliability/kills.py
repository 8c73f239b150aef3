"""Kill trainings with SIGKILL, resume them, and compare with a training that nobody killed.

    python tests/reliability/kills.py --kills 100 --seed 1

Trains tiny variants of the digits configs of all four tasks, with worker processes, augmentation,
EMA, gradient accumulation and CycleGAN's image pool. A training is killed up to three times before
it may finish. Every second kill hits while a checkpoint is written: with a half-written file, or
before or after it is flushed and renamed. The others hit at a random moment. The finished training
must have the same bits as the reference: weights, optimiser, EMA, history and best checkpoint.

Trainings are forked from one process that has imported everything, which saves their start.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
TASKS = {
    'classification': f"""
_base_ = '{CONFIGS}/classification/resnet18_nc_1xb2_digits.py'
train_dataloader = dict(num_workers=2, persistent_workers=True, num_batch_per_epoch=5, dataset=dict(
    data_root='folder', pipeline=[
        dict(type='LoadImageFromFile'), dict(type='Resize', scale=(16, 16)),
        dict(type='RandomFlip', prob=0.5), dict(type='ColorJitter', brightness=0.5),
        dict(type='PackInputs')]))
val_dataloader = dict(dataset=dict(data_root='folder', indices=20))
model = dict(backbone=dict(base_channels=8, stem_channels=8), head=dict(in_channels=64))
custom_hooks = _base_.custom_hooks + [dict(type='EMAHook')]
optim_wrapper = dict(accumulative_counts=2)  # 5 batches an epoch: epochs end between two steps
train_cfg = dict(max_epochs=4)
""",
    'deeplab': f"""
_base_ = '{CONFIGS}/deeplab/deeplabv3plus_r18-d8_nc_1xb2_digits.py'
pipeline = [
    dict(type='LoadImage'), dict(type='LoadSegMap', num_classes=11),
    dict(type='RandomCrop', crop_size=(64, 64)), dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'), dict(type='PackSegInputs')]
train_dataloader = dict(num_workers=1, dataset=dict(data_root='voc', pipeline=pipeline))
val_dataloader = dict(batch_size=1, dataset=dict(data_root='voc'))
model = dict(data_preprocessor=dict(size=(64, 64)))
train_cfg = dict(max_iters=11, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=2))
""",
    'mask_rcnn': f"""
_base_ = '{CONFIGS}/mask_rcnn/mask-rcnn_r18_fpn_nc-all_1xb2_digits.py'
pipeline = [
    dict(type='LoadImage'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=[(96, 96), (128, 128)]), dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')]
train_dataloader = dict(
    num_workers=1, num_batch_per_epoch=3, dataset=dict(data_root='coco/', pipeline=pipeline))
val_dataloader = dict(dataset=dict(data_root='coco/'))
val_evaluator = dict(ann_file='coco/annotations/instances_val.json')
train_cfg = dict(max_epochs=3)
""",
    'cyclegan': f"""
_base_ = '{CONFIGS}/cyclegan/cyclegan_resnet2-w16_nc_1xb8-10e_digits.py'
train_dataloader = dict(
    batch_size=2, num_workers=1, num_batch_per_epoch=4,
    dataset=dict(data_root='unpaired', flip=True))
val_dataloader = dict(batch_size=2, dataset=dict(data_root='unpaired'), num_batch_per_epoch=2)
val_evaluator = [dict(type='CycleL1')]
model = dict(pool_size=3)
train_cfg = dict(max_epochs=3)
""",
}


@dataclass
class Outcome:
    """What happened to the trainings of one task."""

    kills: int = 0
    during_writes: int = 0
    resumes: int = 0
    trainings: int = 0
    failures: list[str] = field(default_factory=list)


def prepare(folder: Path) -> None:
    """Write the digits and the configs, and import what the trainings need."""
    from nc_plugins.datasets.digits import write_digits

    write_digits(folder, scenes_train=12, scenes_val=2)
    for task, text in TASKS.items():
        (folder / f'{task}.py').write_text(text)
    sys.path.append(str(ROOT / 'tools'))
    for module in ('mmdet.apis', 'mmpretrain.apis', 'mmseg.apis', 'train'):
        importlib.import_module(module)
    import torch

    torch.set_num_threads(1)
    from nc_plugins.engine.safe_loading import protect

    protect()


def check(task: str, kills: int, folder: Path, numbers: random.Random, say=print) -> Outcome:
    """Kill trainings of ``task`` until there were ``kills`` kills, and compare each with the
    reference."""
    outcome = Outcome()
    for name in ('reference', 'again'):  # the first training of a process is slower
        start = time.monotonic()
        code, writes = train(task, folder, name)
        seconds = time.monotonic() - start
        if code:
            outcome.failures.append(f'{task}: {name} failed, see {task}-{name}.log')
            return outcome
    reference = result(folder / f'{task}-reference')
    again = result(folder / f'{task}-again')
    outcome.failures += [f'{task}: again: {d}' for d in differences(reference, again)]
    while outcome.kills < kills:
        outcome.trainings += 1
        name = f'kill{outcome.trainings}'
        for attempt in range(4):
            at_write = after = None
            if attempt < 3 and outcome.kills < kills:
                if outcome.kills % 2:
                    at_write = numbers.randrange(writes)
                else:
                    after = numbers.uniform(0.1, 0.9) * seconds
            outcome.resumes += attempt > 0
            code, _ = train(task, folder, name, at_write=at_write, after=after)
            if code != -signal.SIGKILL:
                break
            outcome.kills += 1
            outcome.during_writes += at_write is not None
        if code:
            outcome.failures.append(f'{task}: {name} ended with {code}, see {task}-{name}.log')
        else:
            actual = result(folder / f'{task}-{name}')
            outcome.failures += [f'{task}: {name}: {d}' for d in differences(reference, actual)]
        say(f'{task}: {outcome.kills}/{kills} kills, {len(outcome.failures)} failures', flush=True)
        if outcome.failures:
            break
    return outcome


def train(task, folder, name, at_write=None, after=None) -> tuple[int, int]:
    """Train in a child process, with --resume. Returns its exit code and its number of writes.

    Args:
        at_write: kill it at this step of writing checkpoints, or
        after: kill it after so many seconds.
    """
    counts = folder / 'writes.txt'
    counts.unlink(missing_ok=True)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            log = os.open(folder / f'{task}-{name}.log', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(folder)
            steps = count_writes(at_write)
            import train as tool

            work = f'{task}-{name}'
            code = tool.main([f'{task}.py', '--resume', '--work-dir', work])
            counts.write_text(str(len(steps)))
        finally:
            os._exit(code)
    deadline = time.monotonic() + (after or 300)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code, int(counts.read_text()) if counts.exists() else 0
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return (-signal.SIGKILL, 0) if after else (-signal.SIGALRM, 0)
        time.sleep(0.02)


def count_writes(kill_at: int | None) -> list[str]:
    """List the steps of writing checkpoints in this process, and die at number ``kill_at``.

    The steps of a file: half of it is written, all of it is written, it is flushed, it is renamed.
    """
    steps = []
    opened, synced, replaced = Path.open, os.fsync, os.replace

    def step(name):
        if kill_at == len(steps):
            os.kill(os.getpid(), signal.SIGKILL)
        steps.append(name)

    def watched(path):
        return str(path).endswith(('.pth.partial', 'last_checkpoint.partial'))

    class HalfWritten:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            step('half')
            self.file.write(content[len(content) // 2 :])

        def __getattr__(self, name):
            return getattr(self.file, name)

    def open_(path, *args, **kwargs):
        file = opened(path, *args, **kwargs)
        return HalfWritten(file) if watched(path) else file

    def fsync(number):
        step('written')
        synced(number)

    def replace(source, target):
        if watched(source):
            step('flushed')
        replaced(source, target)
        if watched(source):
            step('renamed')

    Path.open, os.fsync, os.replace = open_, fsync, replace
    return steps


def result(folder: Path) -> dict:
    """All that must be equal after a resumed training."""
    from nc_plugins.engine.safe_loading import load_checkpoint

    files = {}
    for path in folder.glob('*.pth'):
        content = load_checkpoint(path)
        for name in ('meta', 'message_hub', 'run_times'):  # times
            content.pop(name, None)
        files[path.name] = content
    history = [json.loads(line) for line in (folder / 'history.jsonl').open()]
    record = json.loads((folder / 'record.json').read_text())
    kept = ('finished', 'metrics', 'metrics_min', 'metrics_max', 'max_iters')
    return {
        'files': files,
        'history': [{k: v for k, v in event.items() if k != 'utc'} for event in history],
        'record': {key: record[key] for key in kept},
    }


def differences(expected, actual, where: str = '') -> Iterator[str]:
    """The places at which two nested results differ."""
    import torch

    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys(), key=str):
            if key in expected and key in actual:
                yield from differences(expected[key], actual[key], f'{where}/{key}')
            else:
                yield f'{where}/{key} is missing'
    elif isinstance(expected, (list, tuple)) and isinstance(actual, (list, tuple)):
        if len(expected) != len(actual):
            yield f'{where} has another length'
        for place, (one, other) in enumerate(zip(expected, actual, strict=False)):
            yield from differences(one, other, f'{where}/{place}')
    elif isinstance(expected, torch.Tensor) and isinstance(actual, torch.Tensor):
        if not (expected.shape == actual.shape and torch.equal(expected, actual)):
            yield f'{where} has other bits'
    elif expected != actual and (expected == expected or actual == actual):  # NaN equals NaN
        yield f'{where} differs'


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--kills', type=int, default=100, help='over all tasks')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--tasks', nargs='+', default=list(TASKS), choices=TASKS)
    parser.add_argument('--folder', type=Path, help='keep the trainings here')
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder)
    total, failures = Counter(), []
    for number, task in enumerate(args.tasks):
        share = args.kills // len(args.tasks)
        outcome = check(task, share, folder, random.Random(args.seed * 100 + number))
        print(task, outcome)
        failures += outcome.failures
        for name in ('kills', 'during_writes', 'resumes', 'trainings'):
            total[name] += getattr(outcome, name)
    print(dict(total), f'{len(failures)} failures')
    print('\n'.join(failures[:20]))
    return bool(failures)


if __name__ == '__main__':
    sys.exit(main())
