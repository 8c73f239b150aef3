#!/usr/bin/env python3
"""Put the downloaded Tiny ImageNet into class folders.

    python tools/convert_tiny_imagenet.py tiny-imagenet-200.zip data/tiny_imagenet

SRC is http://cs231n.stanford.edu/tiny-imagenet-200.zip or the folder extracted from it; DEST gets
{train,val}/<wnid>/*.JPEG, the validation images sorted by val_annotations.txt. A complete DEST is
left alone.
"""

import argparse
import signal
import sys


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', help='tiny-imagenet-200.zip or its extracted folder')
    parser.add_argument('dest', help='folder to write, such as data/tiny_imagenet')
    parser.add_argument('--force', action='store_true', help='replace an earlier conversion')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    # A polite kill cleans up like Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        from nc_plugins.datasets.tiny_imagenet import OFFICIAL, convert_tiny_imagenet

        counts = convert_tiny_imagenet(
            args.src,
            args.dest,
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
    if counts is None:
        print(f'{args.dest} is complete already, nothing to do (--force converts again)')
        return 0
    print(f'{args.dest}: ' + ', '.join(f'{n:,} {what}' for what, n in counts.items()))
    if counts != OFFICIAL:
        wanted = ', '.join(f'{n:,} {what}' for what, n in OFFICIAL.items())
        print(f'warning: the official set has {wanted}', file=sys.stderr)
    return 0


if __name__ == '__main__':
    sys.exit(main())
