#!/usr/bin/env python3
"""Sort the downloaded Tiny ImageNet into class folders.

    python tools/convert_tiny_imagenet.py tiny-imagenet-200.zip data/tiny_imagenet

SRC is http://cs231n.stanford.edu/tiny-imagenet-200.zip or the folder extracted from it. The result
is DEST/{train,val}/<wnid>/*.JPEG. The classes of the validation images come from
val_annotations.txt. A complete DEST is not written again.
"""

import argparse
import sys

from command_line import required_imports, run_tool

with required_imports():
    from nc_plugins.datasets.tiny_imagenet import OFFICIAL, convert_tiny_imagenet


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', help='tiny-imagenet-200.zip or its extracted folder')
    parser.add_argument('dest', help='folder to write, such as data/tiny_imagenet')
    parser.add_argument('--force', action='store_true', help='replace an earlier conversion')
    return parser.parse_args()


def convert(args) -> None:
    counts = convert_tiny_imagenet(
        args.src, args.dest, force=args.force, progress=lambda line: print(line, flush=True)
    )
    if counts is None:
        print(f'{args.dest} is complete already, nothing to do (--force converts again)')
        return
    print(f'{args.dest}: ' + ', '.join(f'{n:,} {what}' for what, n in counts.items()))
    if counts != OFFICIAL:
        official = ', '.join(f'{n:,} {what}' for what, n in OFFICIAL.items())
        print(f'warning: the official set has {official}', file=sys.stderr)


def main() -> int:
    args, errors = parse_args(), (ImportError, OSError, ValueError)
    return run_tool(lambda: convert(args), errors, interrupted='interrupted, nothing written')


if __name__ == '__main__':
    sys.exit(main())
