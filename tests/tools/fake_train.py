"""Takes the arguments of tools/train.py and writes the files of a training, in milliseconds.

Its own config options are fake.fail_seed, fake.sleep (seconds in each epoch), fake.silent (finish
without a record), fake.exit (exit code after a finished run), and fake.wait<seed> (a file for which
the run with this seed waits, after fake.before epochs [0]). Only the first of several processes
does anything. A checkpoint is an empty file.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from filelock import FileLock

# Without nc_plugins itself, which imports torch for seconds.
sys.path.append(str(Path(__file__).resolve().parents[2] / 'nc_plugins'))
from processes import end_with_parent
from records import LOCK, Record, Start, TrainingLoss, Validation, append_event, write_record

end_with_parent()
if os.environ.get('RANK', '0') != '0':
    sys.exit()
parser = argparse.ArgumentParser()
parser.add_argument('config')
parser.add_argument('--work-dir', type=Path, required=True)
parser.add_argument('--launcher')
parser.add_argument('--resume', action='store_true')
parser.add_argument('--cfg-options', nargs='+', required=True)
args = parser.parse_args()
options = dict(option.split('=', 1) for option in args.cfg_options)
seed = int(options['randomness.seed'])
accuracy = 50 if 'nc' in Path(args.config).stem else 40

lock = FileLock(args.work_dir / LOCK, blocking=False)
lock.acquire()
print(f'training {args.config} seed {seed} as process {os.getpid()}', flush=True)
scalars = args.work_dir / '20250101_000000' / 'vis_data' / 'scalars.json'
scalars.parent.mkdir(parents=True, exist_ok=True)
norm = 'NC' if accuracy == 50 else 'GN'
saved = f"model = dict(norm='{norm}')\nrun_fingerprint = '{options['run_fingerprint']}'\n"
(args.work_dir / Path(args.config).name).write_text(saved)

first = 1
if args.resume:
    first += int((args.work_dir / 'last_checkpoint').read_text()[-len('1.pth')])
else:
    append_event(args.work_dir, Start(by_epoch=True, max_epochs=3, max_iters=30))
for epoch in range(first, 4):
    if epoch == 1 + int(options.get('fake.before', 0)):
        while f'fake.wait{seed}' in options and not Path(options[f'fake.wait{seed}']).exists():
            time.sleep(0.1)
    time.sleep(float(options.get('fake.sleep', 0)))
    iteration, loss = 10 * epoch, 2 / epoch
    line = dict(loss=loss, lr=0.01, epoch=epoch, iter=iteration, step=iteration)
    with scalars.open('a') as file:
        file.write(json.dumps(line) + '\n')
    if epoch == 2 and options.get('fake.fail_seed') == str(seed):
        print('line before the end')
        sys.exit('RuntimeError: the fake training was told to fail')
    append_event(args.work_dir, TrainingLoss(epoch, iteration, {'loss': loss}))
    metrics = {'accuracy/top1': accuracy + seed + epoch, 'val/loss': loss + 0.5}
    append_event(args.work_dir, Validation(epoch, iteration, metrics))
    (args.work_dir / f'epoch_{epoch}.pth').touch()
    (args.work_dir / 'last_checkpoint').write_text(str(args.work_dir / f'epoch_{epoch}.pth'))

if 'fake.silent' not in options:
    record = Record(
        fingerprint=options['run_fingerprint'],
        images_per_second=100.0 + seed,
        peak_memory_mb=512.0,
        memory_kind='process peak RSS',
        device='CPU fake',
        threads=int(os.environ.get('OMP_NUM_THREADS', 0)),
        torch='2.11.0',
        commit='c0ffee',
        utc_start='2025-01-01T00:00:00+00:00',
        utc_end='2025-01-01T00:01:00+00:00',
    )
    write_record(args.work_dir, record)
sys.exit(int(options.get('fake.exit', 0)))
