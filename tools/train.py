#!/usr/bin/env python3
"""Train a model from a config of mmpretrain, mmdet, mmseg or this repository.

    python tools/train.py configs/classification/resnet18_nc_1xb2-50e_cifar10.py

The arguments are those of OpenMMLab's train.py, --to, --calibrate and --trust-checkpoint.
ReliableRunner, DurableCheckpointHook, NCCensusHook and RunRecordHook are added to a config that
does not have them.
"""

import argparse
import sys

from command_line import required_imports, run_tool

with required_imports():
    from nc_plugins.engine.preflight import check_checkpoint, check_data, enter_scope
    from nc_plugins.engine.runner import add_common_arguments, build_and_run, configured, locked
    from nc_plugins.engine.safe_loading import CheckpointMatchHook
    from nc_plugins.engine.training import (
        apply_training_flags,
        check_trainable,
        choose_start,
        is_finished,
    )
    from nc_plugins.engine.usage import UsageError
    from nc_plugins.processes import end_with_parent


def parse_args(argv=None):
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
        help='continue from this checkpoint; without CKPT, from the latest in the work dir',
    )
    parser.add_argument(
        '--calibrate',
        type=int,
        metavar='N',
        help='before the first iteration, fit the norms that --to converts on N training images',
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def train(args):
    def run(runner):
        whole = bool(runner.cfg.get('resume'))
        runner.register_hook(CheckpointMatchHook(whole), priority='LOWEST')
        runner.train()

    with configured(args) as cfg:
        check_trainable(cfg)
        apply_training_flags(
            cfg, amp=args.amp, auto_scale_lr=args.auto_scale_lr, calibrate=args.calibrate
        )
        check_checkpoint(cfg.get('load_from') if args.resume in (None, 'auto') else args.resume)
        enter_scope(cfg)
        check_data(cfg, ('train_dataloader', 'val_dataloader'))
        with locked(cfg.work_dir):
            if args.resume == 'auto' and is_finished(cfg):
                print(f'the training in {cfg.work_dir} is finished: nothing to resume')
                return
            for warning in choose_start(cfg, args.resume):
                print('warning:', warning, file=sys.stderr)
            build_and_run(cfg, run)


def main(argv=None) -> int:
    end_with_parent()
    return run_tool(lambda: train(parse_args(argv)), UsageError)


if __name__ == '__main__':
    sys.exit(main())
