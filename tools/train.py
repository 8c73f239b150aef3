#!/usr/bin/env python3
"""Train what a config of mmpretrain, mmdet, mmseg or this repository describes.

    python tools/train.py configs/classification/resnet18_nc_1xb2-50e_cifar10.py

The arguments are those of OpenMMLab's own tools. The layer census and the run record are added
to a config that does not list them.
"""

import argparse
import signal
import sys


def parse_args(argv=None):
    from nc_plugins.engine.launch import add_common_arguments

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('--amp', action='store_true', help='mixed precision (needs a GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale lr by batch size over all GPUs / the config's auto_scale_lr.base_batch_size",
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='go on from this checkpoint, or without one from the latest in the work dir',
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def train(args):
    from nc_plugins.engine.launch import launch, load_config
    from nc_plugins.engine.preflight import check_checkpoint, check_data, enter_scope
    from nc_plugins.engine.training import apply_training_flags, check_trainable

    cfg = load_config(args)
    check_trainable(cfg)
    apply_training_flags(cfg, amp=args.amp, auto_scale_lr=args.auto_scale_lr, resume=args.resume)
    check_checkpoint(cfg.get('load_from'))
    enter_scope(cfg)
    check_data(cfg, ('train_dataloader', 'val_dataloader'))
    launch(cfg, lambda runner: runner.train())


def main(argv=None) -> int:
    try:
        from nc_plugins.engine.usage import run_tool

        args = parse_args(argv)
    except ModuleNotFoundError as e:
        print(f'error: {e}; run `make setup` first and use its .venv/bin/python', file=sys.stderr)
        return 1
    return run_tool(lambda: train(args))


if __name__ == '__main__':
    # A polite kill cleans up like Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
