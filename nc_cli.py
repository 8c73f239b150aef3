"""The command ``nc``: runs the programs of the folder tools, from a clone or from a wheel.

    nc train CONFIG --to NC
    nc doctor

``python -m nc_plugins`` is the same. Uses the standard library only and does not import nc_plugins,
which imports torch: ``nc doctor`` must also run where torch is missing or broken.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMMANDS = {
    'train': 'train a model from a config',
    'test': 'evaluate a checkpoint',
    'compare': 'train several configs with several seeds and write a report',
    'convert': 'write a config whose model is converted to another normalisation',
    'census': 'count the convolutions and norms of the model of a config',
    'doctor': 'check the installation, and print what mends it',
    'make-digits': 'write the data set of handwritten digits',
    'convert-tiny-imagenet': 'sort the downloaded Tiny ImageNet into class folders',
    'install-mmcv': 'install mmcv with compiled operators',
}


def tools() -> Path:
    """The folder of the programs: setup.py puts it into the package, as OpenMMLab's do."""
    packaged = HERE / 'nc_plugins' / '.mim' / 'tools'
    return packaged if packaged.is_dir() else HERE / 'tools'


def main() -> int:
    """Run the program that the first argument names. Returns its exit code."""
    command, *arguments = sys.argv[1:] or ['--help']
    if command in ('-h', '--help'):
        print('usage: nc COMMAND [arguments]      nc COMMAND --help shows the arguments\n')
        for name, text in COMMANDS.items():
            print(f'  {name:24}{text}')
        return 0
    if command not in COMMANDS:
        print(f'error: {unknown(command)}', file=sys.stderr)
        return 2
    sys.argv = [f'nc {command}', *arguments]
    sys.path.insert(0, str(tools()))  # the programs import command_line.py beside them
    return importlib.import_module(command.replace('-', '_')).main() or 0


def unknown(command: str) -> str:
    """The sentence for an unknown command. It may be meant for netcat, which is also called nc."""
    ours = {Path(sys.argv[0]).resolve().parent, Path(sys.executable).parent.resolve()}
    folders = os.environ.get('PATH', '').split(os.pathsep)
    others = os.pathsep.join(f for f in folders if Path(f).resolve() not in ours)
    netcat = shutil.which('nc', path=others)
    hint = f'; this is the nc of nc_plugins, and netcat is {netcat}' if netcat else ''
    return f'nc has no command {command!r}, wanted one of {", ".join(COMMANDS)}{hint}'


if __name__ == '__main__':
    sys.exit(main())
