#!/usr/bin/env python3
"""Evaluate a checkpoint on the test set of its config.

    python tools/test.py configs/classification/resnet18_nc_1xb2-50e_cifar10.py CHECKPOINT

The arguments are those of OpenMMLab's test.py.
"""

import argparse
import os
import sys

from command_line import required_imports, run_tool

with required_imports():
    from mmengine.evaluator import DumpResults

    from nc_plugins.engine.census import DeployHook
    from nc_plugins.engine.preflight import check_checkpoint, check_data, enter_scope
    from nc_plugins.engine.runner import add_common_arguments, build_and_run, configured
    from nc_plugins.engine.usage import UsageError


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
    """Make the config draw predictions into ``folder``, or nothing if ``folder`` is None.

    The visualization hook of each OpenMMLab package has its own argument for the folder.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if folder is None:
        if hook and 'draw' in hook:
            hook.draw = False  # a config may set True to draw during validation
        return
    if hook is None:
        raise UsageError(
            '--show-dir needs default_hooks.visualization, and the config does not have it'
        )
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UsageError(f'--show-dir must be a folder, got the file {folder}')
    scope = cfg.get('default_scope')
    if scope == 'mmpretrain':
        hook.update(enable=True, out_dir=folder)
    elif scope == 'mmseg':
        hook.draw = True
        # Absolute, because mmseg joins it to the folder of the log.
        pictures = os.path.abspath(folder)
        cfg.visualizer.vis_backends = [dict(type='LocalVisBackend', img_save_dir=pictures)]
    else:
        # Absolute, because mmdet's hook joins it to the work dir for each image.
        hook.update(draw=True, test_out_dir=os.path.abspath(folder))


def main(argv=None) -> int:
    return run_tool(lambda: evaluate(parse_args(argv)), UsageError)


if __name__ == '__main__':
    sys.exit(main())
