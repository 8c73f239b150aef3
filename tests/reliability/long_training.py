"""Train for 2,000 iterations with images of varying size, and watch memory and open files.

    python tests/reliability/long_training.py --iterations 2000

A thin DeepLabV3+ with NC reads the digits through a worker process. Every batch has another image
size. Prints the resident memory and the number of open files over the training.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import psutil
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, init_default_scope

ROOT = Path(__file__).resolve().parents[2]
TEXT = f"""
_base_ = '{ROOT}/configs/deeplab/deeplabv3plus_r18-d8_nc_1xb2_digits.py'
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(128, 128), ratio_range=(0.5, 1.5), keep_ratio=True),
    dict(type='PackSegInputs')]
train_dataloader = dict(batch_size=1, num_workers=1, dataset=dict(pipeline=pipeline))
model = dict(data_preprocessor=dict(size=None, size_divisor=16))
"""


@HOOKS.register_module(force=True)
class Watch(Hook):
    """Collects resident MiB and open files of this process at intervals."""

    def __init__(self, interval: int) -> None:
        self.interval, self.seen = interval, []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self.every_n_train_iters(runner, self.interval):
            process = psutil.Process()
            memory, files = process.memory_info().rss / 2**20, process.num_fds()
            self.seen.append((runner.iter + 1, memory, files))
            print(f'iteration {runner.iter + 1}: {memory:.1f} MiB, {files} open files', flush=True)


def train(folder: Path, iterations: int) -> list[tuple[int, float, int]]:
    """Iteration, resident MiB and open files, twenty times during the training."""
    from nc_plugins.datasets.digits import write_digits
    from nc_plugins.engine.reliable_runner import ReliableRunner

    write_digits(folder / 'data/digits', scenes_train=40, scenes_val=2)
    (folder / 'config.py').write_text(TEXT)
    cfg = Config.fromfile(folder / 'config.py')
    cfg.merge_from_dict({
        'work_dir': str(folder / 'run'),
        'train_dataloader.dataset.data_root': str(folder / 'data/digits/voc'),
        'train_cfg.max_iters': iterations,
        'default_hooks.checkpoint.interval': iterations // 4,
        'default_hooks.logger.interval': 10,
    })  # fmt: skip
    for key in ('val_dataloader', 'val_evaluator', 'val_cfg', 'test_dataloader',
                'test_evaluator', 'test_cfg'):  # fmt: skip
        cfg[key] = None
    del cfg.default_hooks.checkpoint['save_best']
    init_default_scope('mmseg')
    watch = Watch(max(1, iterations // 20))
    runner = ReliableRunner.from_cfg(cfg)
    runner.register_hook(watch)
    runner.train()
    return watch.seen


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--iterations', type=int, default=2000)
    args = parser.parse_args()
    seen = train(Path(tempfile.mkdtemp()), args.iterations)
    later = [memory for _, memory, _ in seen[len(seen) // 4 :]]  # caches fill before
    files = {count for _, _, count in seen}
    growth = max(later) / later[0] - 1
    print(f'resident memory grows by {growth:.2%} after the first quarter; open files: {files}')
    return int(growth > 0.02 or len(files) > 1)


if __name__ == '__main__':
    sys.exit(main())
