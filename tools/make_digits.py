#!/usr/bin/env python3
"""Write scikit-learn's handwritten digits in the layouts of all four tasks.

    python tools/make_digits.py data/digits

A folder of class folders (classification), COCO instances, a Pascal VOC tree and two unpaired
domains, from the 1,797 real images that scikit-learn installs: no download. Takes seconds; a
complete set is left alone.
"""

import argparse
import signal
import sys
import time


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('dest', help='folder to write, such as data/digits')
    parser.add_argument('--scenes-train', type=int, default=400, metavar='N', help='default 400')
    parser.add_argument('--scenes-val', type=int, default=100, metavar='N', help='default 100')
    parser.add_argument(
        '--seed', type=int, default=0, help='of the split and the scenes, default 0'
    )
    parser.add_argument('--force', action='store_true', help='replace a set of other parameters')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    start = time.perf_counter()
    # A polite kill cleans up like Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        from nc_plugins.datasets.digits import write_digits

        written = write_digits(
            args.dest,
            scenes_train=args.scenes_train,
            scenes_val=args.scenes_val,
            seed=args.seed,
            force=args.force,
            progress=lambda line: print(line, flush=True),
        )
    except KeyboardInterrupt:
        print('interrupted, nothing written', file=sys.stderr)
        return 130
    except ModuleNotFoundError as e:
        print(f'error: {e}; run `make setup` first', file=sys.stderr)
        return 1
    except (ImportError, OSError, ValueError) as e:
        print(f'error: {e}', file=sys.stderr)
        return 1
    if written:
        print(f'{args.dest} written in {time.perf_counter() - start:.1f} s')
    else:
        print(f'{args.dest} is complete already, nothing to do (--force writes it again)')
    return 0


if __name__ == '__main__':
    sys.exit(main())
