"""Takes tools/train.py's arguments and leaves the files of a training, in milliseconds.

Options of its own, in the config options: fake.fail_seed, fake.sleep (seconds an epoch),
fake.silent (finish without a record), fake.exit (exit code after a finished run).
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument('config')
parser.add_argument('--work-dir', type=Path, required=True)
parser.add_argument('--cfg-options', nargs='+', required=True)
args = parser.parse_args()
options = dict(option.split('=', 1) for option in args.cfg_options)
seed = int(options['randomness.seed'])
level = 50 if 'nc' in Path(args.config).stem else 40

print(f'training {args.config} seed {seed} as process {os.getpid()}', flush=True)
scalars = args.work_dir / '20250101_000000' / 'vis_data' / 'scalars.json'
scalars.parent.mkdir(parents=True)
history = args.work_dir / 'history.jsonl'


def append(path, **event):
    with path.open('a') as file:
        file.write(json.dumps(event) + '\n')


append(history, event='start', by_epoch=True, max_epochs=3, max_iters=30)
for epoch in (1, 2, 3):
    time.sleep(float(options.get('fake.sleep', 0)))
    loss = 2 / epoch
    append(scalars, loss=loss, lr=0.01, epoch=epoch, iter=10 * epoch, step=10 * epoch)
    if epoch == 2 and options.get('fake.fail_seed') == str(seed):
        print('line before the end')
        sys.exit('RuntimeError: the fake training was told to fail')
    append(history, event='train', epoch=epoch, iter=10 * epoch, losses={'loss': loss})
    metrics = {'accuracy/top1': level + seed + epoch, 'val/loss': loss + 0.5}
    append(history, event='val', epoch=epoch, iter=10 * epoch, metrics=metrics)

if 'fake.silent' not in options:
    record = {
        'finished': True,
        'fingerprint': options['run_fingerprint'],
        'images_per_second': 100.0 + seed,
        'peak_memory_mb': 512.0,
        'memory_kind': 'process peak RSS',
        'device': 'CPU fake',
        'threads': int(os.environ.get('OMP_NUM_THREADS', 0)),
        'torch': '2.11.0',
        'commit': 'c0ffee',
        'utc_start': '2025-01-01T00:00:00+00:00',
        'utc_end': '2025-01-01T00:01:00+00:00',
    }
    (args.work_dir / 'record.json').write_text(json.dumps(record))
sys.exit(int(options.get('fake.exit', 0)))
