#!/usr/bin/env python3
"""Write a config whose model is converted to another kind of normalisation.

    python tools/convert.py mask-rcnn_r50_fpn_1x_coco.py --to NC --out mask-rcnn_nc.py

The new config stands alone: it inherits nothing. Its model has the type NCModel, with the options
given here, which are those of nc_plugins.convert(). The plan of the conversion is printed: what
each convolution and norm becomes, or why it stays.
"""

import argparse
import sys
from pathlib import Path

from command_line import required_imports, run_tool

with required_imports():
    import nc_plugins
    from nc_plugins.convert.kinds import TARGETS
    from nc_plugins.convert.openmmlab import convert_config
    from nc_plugins.engine.model import build_model
    from nc_plugins.engine.runner import (
        add_config_options,
        add_conversion_options,
        conversion_options,
        edited_config,
    )
    from nc_plugins.engine.usage import UsageError


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file of mmpretrain, mmdet, mmseg or your own')
    parser.add_argument('--out', type=Path, metavar='FILE', help='where to write the config')
    parser.add_argument('--to', choices=TARGETS, default='NC', help='default NC')
    add_conversion_options(parser)
    parser.add_argument('--dry-run', action='store_true', help='print the plan, write nothing')
    parser.add_argument('--force', action='store_true', help='overwrite FILE')
    add_config_options(parser)
    return parser.parse_args(argv)


def convert(args):
    if not args.dry_run:
        check_out(args)
    cfg = edited_config(args.config, args.cfg_options)
    options = conversion_options(args)
    try:
        _, plan = nc_plugins.convert(build_model(cfg), args.to, **options, dry_run=True)
    except ValueError as error:  # a path in --keep that the model does not have
        raise UsageError(str(error)) from error
    if not plan.converted:
        raise UsageError(f'nothing in the model of {args.config} can become {args.to}')
    if args.dry_run:
        return
    convert_config(cfg, args.to, **options)
    text = cfg.dump()  # in the format of args.config
    if args.out.suffix == '.py':
        name = Path(args.config).name
        text = f'# {name}, converted to {args.to} by the tool convert of nc_plugins.\n{text}'
    args.out.write_text(text, encoding='utf-8')
    print(f'written: {args.out}')


def check_out(args):
    """Raise UsageError if --out is not the name of a new file with the suffix of the config."""
    if args.out is None:
        raise UsageError('--out is missing: give the file to write, or --dry-run')
    # A config in JSON or YAML can run no code. In Python it could.
    suffix = Path(args.config).suffix
    if args.out.suffix != suffix:
        raise UsageError(f'--out must end in {suffix} as the config does, got {args.out}')
    if args.out.is_dir() or (args.out.exists() and not args.force):
        raise UsageError(f'{args.out} exists: choose another --out, or overwrite it with --force')
    if not args.out.parent.is_dir():
        raise UsageError(f'--out is in the folder {args.out.parent}, which does not exist')


def main(argv=None) -> int:
    return run_tool(lambda: convert(parse_args(argv)), (UsageError, OSError))


if __name__ == '__main__':
    sys.exit(main())
