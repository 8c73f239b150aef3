#!/usr/bin/env python3
"""Check the installation: versions, compiled operators, registries, and the backend in use.

    python tools/doctor.py

Below each problem is the line that mends it. "note" marks what only some configs or tools need.
Exit code 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from command_line import run_tool
from install_mmcv import CALL_NMS

HERE = Path(__file__).resolve().parent
PYTHON = shlex.quote(sys.executable)
PIP = f'{PYTHON} -m pip install'
# Packages of OpenMMLab: what they are for, their names for pip, and whether they need mmcv's
# compiled operators.
FRAMEWORKS = {
    'mmpretrain': ('classification', 'onedl-mmpretrain', False),
    'mmdet': ('detection', 'onedl-mmdetection', True),
    'mmseg': ('segmentation', 'onedl-mmsegmentation', True),
}
# Packages of the tools: what they are for, and their names for pip.
EXTRAS = {
    'filelock': ('train and compare', 'filelock'),
    'rich': ('compare', 'rich'),
    'matplotlib': ('compare', 'matplotlib'),
    'jinja2': ('compare', 'jinja2'),
    'scipy': ('compare', "'scipy>=1.15'"),
    'sklearn': ('make-digits', 'scikit-learn'),
    'tensorboard': ('the curves of the configs', 'tensorboard'),
}
REGISTERED = ('NC', 'NC1d', 'NC2d', 'NC3d', 'NCWS', 'NCDeconv', 'NCAffine', 'PN', 'NCModel')
PIP_NAMES = {'cv2': 'opencv-python-headless', 'PIL': 'Pillow', 'sklearn': 'scikit-learn'}


class Finding(NamedTuple):
    state: str  # 'ok', 'note' or 'WRONG'
    text: str
    mend: str = ''  # a line for the shell


def findings() -> Iterator[Finding]:
    yield Finding('ok', f'Python {sys.version.split()[0]}')
    yield from check_command()
    torch, problem = imported('torch')
    if problem:
        again = '--force-reinstall ' if find_spec('torch') else ''
        yield Finding('WRONG', problem, f'{PIP} {again}torch')
        return
    if tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6):
        problem = f'torch is {torch.__version__}, wanted 2.6 or newer'
        yield Finding('WRONG', problem, f'{PIP} --upgrade torch')
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'no CUDA device'
    yield Finding('ok', f'torch {torch.__version__}, {device}')
    package, problem = imported('nc_plugins')
    if problem:
        sources = HERE.parent if (HERE.parent / 'setup.py').exists() else 'SOURCES_OF_NC_PLUGINS'
        yield Finding('WRONG', problem, f'{PIP} -e {shlex.quote(str(sources))}')
        return
    yield Finding('ok', f'nc_plugins {package.__version__} in {Path(package.__file__).parent}')
    yield from check_backends(torch)
    yield from check_openmmlab()
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        uses = ', '.join(f'{name} (for {EXTRAS[name][0]})' for name in missing)
        names = ' '.join(EXTRAS[name][1] for name in missing)
        yield Finding('note', f'not installed: {uses}', f'{PIP} {names}')


def check_command() -> Iterator[Finding]:
    """Whether `nc` in a shell is the command of this installation. netcat has the same name."""
    found = shutil.which('nc')
    if found and Path(found).parent.resolve() != Path(sys.executable).parent.resolve():
        text = f'`nc` is {found}, which is not of this Python; this line is the same command'
        yield Finding('note', text, f'{PYTHON} -m nc_plugins')


def check_backends(torch) -> Iterator[Finding]:
    """Run a layer with backend='auto', which logs its choice and the reason."""
    from nc_plugins.ops import nc_conv2d

    for device in ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]:
        try:
            with recorded() as records:
                nc_conv2d(torch.rand(1, 4, 8, 8, device=device), torch.rand(4, 4, 3, 3).to(device))
        except Exception as error:
            problem = f'a layer does not run on {device}: {sentence(error)}'
            yield Finding('WRONG', problem, f'{PIP} --force-reinstall torch')
            continue
        text, build, command = records[-1].getMessage().partition(': build it with `')
        if build:
            yield Finding('WRONG', f'on {device}: {text})', command.partition('`')[0])
        else:  # what keeps a faster backend away belongs to the machine, if anything does
            faster_is_missing = records[-1].levelno >= logging.WARNING
            yield Finding('note' if faster_is_missing else 'ok', f'on {device}: {text}')


def check_openmmlab() -> Iterator[Finding]:
    if find_spec('mmengine') is None:
        text = 'mmengine is not installed; configs of OpenMMLab need it, the layers do not'
        yield Finding('note', text, f'{PIP} onedl-mmengine onedl-mmcv onedl-mmpretrain')
        return
    for name in ('mmengine', 'mmcv'):
        module, problem = imported(name)
        if problem:
            yield Finding('WRONG', problem, mending(problem, f'onedl-{name}'))
            return
        yield Finding('ok', f'{name} {module.__version__}')
    yield check_registry()
    usable = [name for name in FRAMEWORKS if find_spec(name)]
    yield check_operators([name for name in usable if FRAMEWORKS[name][2]])
    for name, (purpose, pip_name, _) in FRAMEWORKS.items():
        if name not in usable:
            text = f'{name} is not installed; configs for {purpose} need it'
            yield Finding('note', text, f'{PIP} {pip_name}')
            continue
        module, problem = imported(name)
        if problem:
            yield Finding('WRONG', problem, mending(problem, pip_name))
        else:
            yield Finding('ok', f'{name} {module.__version__}')


def check_registry() -> Finding:
    from mmengine.registry import MODELS

    missing = [name for name in REGISTERED if MODELS.get(name) is None]
    if missing:
        text = f'the registry of mmengine has no {", ".join(missing)}'
        return Finding('WRONG', text, f'{PIP} --upgrade onedl-mmengine')
    return Finding('ok', f'in the registry: {", ".join(REGISTERED)}')


def check_operators(needed_by: list[str]) -> Finding:
    # In a process of its own: operators for another torch can crash it.
    done = subprocess.run([sys.executable, '-c', CALL_NMS], capture_output=True, text=True)
    if done.returncode == 0:
        return Finding('ok', "mmcv's compiled operators")
    reason = (done.stderr.strip().splitlines() or [f'exit code {done.returncode}'])[-1]
    users = ' and '.join(needed_by or ['mmdet', 'mmseg'])
    text = f"mmcv's compiled operators (for {users}) do not run: {reason}"
    build = f"{PIP} 'setuptools>=80,<81' wheel ninja psutil"
    mend = f'{build} && {PYTHON} {shlex.quote(str(HERE / "install_mmcv.py"))}'
    return Finding('WRONG' if needed_by else 'note', text, mend)


def imported(name: str):
    """The module and None, or None and a sentence."""
    try:
        return importlib.import_module(name), None
    except Exception as error:  # also of a broken library in the package
        return None, f'{name} does not import: {sentence(error)}'


def mending(problem: str, pip_name: str) -> str:
    """Install the module that an import did not find, or else the package again."""
    _, quote, rest = problem.partition("No module named '")
    module = rest.split("'")[0].split('.')[0]
    if quote and module not in ('mmengine', 'mmcv', *FRAMEWORKS):
        return f'{PIP} {PIP_NAMES.get(module, module)}'
    return f'{PIP} --force-reinstall --no-deps {pip_name}'


def sentence(error: Exception) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())


@contextlib.contextmanager
def recorded() -> Iterator[list[logging.LogRecord]]:
    """Collect what the logger of nc_plugins says in the block, in place of printing it."""
    logger, records = logging.getLogger('nc_plugins'), []
    handler = logging.Handler()
    handler.emit = records.append
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def examine() -> int:
    wrong = 0
    for state, text, mend in findings():
        print(f'{state:6}{text}', flush=True)
        if mend:
            print(f'        {mend}', flush=True)
        wrong += state == 'WRONG'
    if wrong:
        print(f'\nWRONG: {wrong}. Run the line below each, and then this check again.')
    else:
        print('\nNothing is wrong.')
    return int(wrong > 0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    warnings.simplefilter('ignore')  # of the packages
    return run_tool(examine, ())


if __name__ == '__main__':
    sys.exit(main())
