#!/usr/bin/env python3
"""Count the convolutions and norms of the model of a config.

    python tools/census.py configs/classification/resnet18_nc_1xb2-50e_cifar10.py

Prints what a training logs about them. Exit code 1 if conv_cfg and norm_cfg do not go together.
"""

import argparse
import logging
import sys

from command_line import required_imports, run_tool

with required_imports():
    from nc_plugins.convert.kinds import TARGETS
    from nc_plugins.convert.openmmlab import convert_config
    from nc_plugins.engine.census import census_messages
    from nc_plugins.engine.model import build_model
    from nc_plugins.engine.runner import add_config_options, edited_config
    from nc_plugins.engine.slots import ignored_slots
    from nc_plugins.engine.usage import UsageError
    from nc_plugins.layers import HalfSwapError


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('--to', choices=TARGETS, help='convert the model to this kind first')
    add_config_options(parser)
    return parser.parse_args(argv)


def census(args):
    cfg = edited_config(args.config, args.cfg_options)
    if args.to:
        convert_config(cfg, args.to)
    model = build_model(cfg)
    for warning in ignored_slots(cfg, model):
        print(f'warning: {warning}')
    for level, sentence in census_messages(model):
        print('warning: ' * (level >= logging.WARNING) + sentence)


def main(argv=None) -> int:
    return run_tool(lambda: census(parse_args(argv)), (UsageError, HalfSwapError))


if __name__ == '__main__':
    sys.exit(main())
