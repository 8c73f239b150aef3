#!/usr/bin/env python3
"""Evaluate a checkpoint on the test set of its config.

    python tools/test.py configs/classification/resnet18_nc_1xb2-50e_cifar10.py CHECKPOINT

The arguments are those of OpenMMLab's test.py, and --trust-checkpoint.
"""

import argparse
import os
import sys

from command_line import required_imports, run_tool

with required_imports():
    from mmengine.evaluator import DumpResults

    from nc_plugins.engine.census import DeployHook
    from nc_plugins.engine.data_check import DataCheckHook
    from nc_plugins.engine.preflight import check_checkpoint, check_data, enter_scope
    from nc_plugins.engine.runner import add_common_arguments, build_and_run, configured
    from nc_plugins.engine.safe_loading import CheckpointMatchHook
    from nc_plugins.engine.usage import UsageError
    from nc_plugins.processes import end_with_parent


DRAWN_BY_PICTURES = ('mmpretrain', 'mmdet', 'mmseg')  # default_scope


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to this file')
    parser.add_argument('--show-dir', metavar='DIR', help='draw the predictions into this folder')
    add_common_arguments(parser)
    return parser.parse_args(argv)


def evaluate(args):
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UsageError(f'--out must end in .pkl or .pickle, got {args.out}')

    def test(runner):
        if args.out:
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
        runner.register_hook(CheckpointMatchHook(whole=True), priority='LOWEST')
        if not any(isinstance(hook, DataCheckHook) for hook in runner.hooks):
            runner.register_hook(DataCheckHook())
        runner.register_hook(DeployHook())
        runner.test()

    with configured(args) as cfg:
        for key in ('test_dataloader', 'test_evaluator'):
            if not cfg.get(key):
                raise UsageError(f'{args.config} has no {key}, so there is nothing to test')
        check_checkpoint(args.checkpoint)
        cfg.load_from, cfg.resume = args.checkpoint, False
        set_show_dir(cfg, args.show_dir)
        enter_scope(cfg)
        check_data(cfg, ['test_dataloader'])
        build_and_run(cfg, test)


def set_show_dir(cfg, folder):
    """Make the config draw predictions into ``folder``, or nothing if ``folder`` is None."""
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    scope = cfg.get('default_scope')
    if hook and 'draw' in hook:
        hook.draw = False  # a config may set True to draw during validation
    if folder is None:
        return
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UsageError(f'--show-dir must be a folder, got the file {folder}')
    if scope in DRAWN_BY_PICTURES:
        options = {'pred_score_thr': hook['score_thr']} if hook and 'score_thr' in hook else {}
        pictures = dict(type='PicturesHook', folder=os.path.abspath(folder), **options)
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), pictures]
    elif hook is None:
        raise UsageError(
            '--show-dir needs default_hooks.visualization, and the config does not have it'
        )
    else:
        hook.update(draw=True, test_out_dir=os.path.abspath(folder))


def main(argv=None) -> int:
    end_with_parent()
    return run_tool(lambda: evaluate(parse_args(argv)), UsageError)


if __name__ == '__main__':
    sys.exit(main())
