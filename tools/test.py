#!/usr/bin/env python3
"""Evaluate a checkpoint on the test set of its config.

    python tools/test.py configs/classification/resnet18_nc_1xb2-50e_cifar10.py CHECKPOINT

The arguments are those of OpenMMLab's own tools.
"""

import argparse
import os
import signal
import sys


def parse_args(argv=None):
    from nc_plugins.engine.launch import add_common_arguments

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions here')
    parser.add_argument('--show-dir', metavar='DIR', help='draw the predictions into this folder')
    add_common_arguments(parser)
    return parser.parse_args(argv)


def evaluate(args):
    from mmengine.evaluator import DumpResults

    from nc_plugins.engine.launch import launch, load_config
    from nc_plugins.engine.preflight import check_checkpoint, check_data, enter_scope
    from nc_plugins.engine.usage import UsageError

    cfg = load_config(args)
    for key in ('test_dataloader', 'test_evaluator'):
        if not cfg.get(key):
            raise UsageError(f'{args.config} has no {key}, so there is nothing to test')
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UsageError(f'--out wants a name ending in .pkl or .pickle, got {args.out}')
    check_checkpoint(args.checkpoint)
    cfg.load_from, cfg.resume = args.checkpoint, False
    show_in(cfg, args.show_dir)
    enter_scope(cfg)
    check_data(cfg, ['test_dataloader'])

    def go(runner):
        if args.out:
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
        runner.test()

    launch(cfg, go)


def show_in(cfg, folder):
    """Draw into ``folder``, None for no pictures; each package's hook has its own words for it."""
    from nc_plugins.engine.usage import UsageError

    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if folder is None:
        if hook and 'draw' in hook:
            hook.draw = False  # True may mean the pictures of validations
        return
    if hook is None:
        raise UsageError('--show-dir needs default_hooks.visualization, which the config lacks')
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UsageError(f'--show-dir wants a folder, got the file {folder}')
    scope = cfg.get('default_scope')
    if scope == 'mmpretrain':
        hook.update(enable=True, out_dir=folder)
    elif scope == 'mmseg':
        hook.draw = True
        # Absolute, because it is joined to the folder of the log.
        pictures = os.path.abspath(folder)
        cfg.visualizer.vis_backends = [dict(type='LocalVisBackend', img_save_dir=pictures)]
    else:
        # Absolute, because mmdet's hook joins it to the work dir, once an image.
        hook.update(draw=True, test_out_dir=os.path.abspath(folder))


def main(argv=None) -> int:
    try:
        from nc_plugins.engine.usage import run_tool

        args = parse_args(argv)
    except ModuleNotFoundError as e:
        print(f'error: {e}; run `make setup` first and use its .venv/bin/python', file=sys.stderr)
        return 1
    return run_tool(lambda: evaluate(args))


if __name__ == '__main__':
    # A polite kill cleans up like Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
