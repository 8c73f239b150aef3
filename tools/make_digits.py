#!/usr/bin/env python3
"""Write scikit-learn's handwritten digits in the layouts of all four tasks.

    python tools/make_digits.py data/digits

The layouts are class folders (classification), COCO instances, a Pascal VOC tree and two unpaired
domains. The 1,797 real images come with scikit-learn, so nothing is downloaded. Takes seconds. A
complete set is not written again.
"""

import argparse
import sys
import time

from command_line import required_imports, run_tool

with required_imports():
    from nc_plugins.datasets.digits import write_digits


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


def make_digits(args) -> None:
    start = time.perf_counter()
    written = write_digits(
        args.dest,
        scenes_train=args.scenes_train,
        scenes_val=args.scenes_val,
        seed=args.seed,
        force=args.force,
        progress=lambda line: print(line, flush=True),
    )
    if written:
        print(f'{args.dest} written in {time.perf_counter() - start:.1f} s')
    else:
        print(f'{args.dest} is complete already, nothing to do (--force writes it again)')


def main() -> int:
    args, errors = parse_args(), (ImportError, OSError, ValueError)
    return run_tool(lambda: make_digits(args), errors, interrupted='interrupted, nothing written')


if __name__ == '__main__':
    sys.exit(main())
