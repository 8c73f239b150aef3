"""Install mmcv into the Python that runs this file.

    python tools/install_mmcv.py             with compiled operators (about 15 minutes, once)
    python tools/install_mmcv.py --no-build  with operators if they were built before, else without

mmcv is published as source. Its operators are compiled for the installed torch, but the name of the
wheel does not contain the version of torch. A wheel for another torch installs without an error and
fails when an operator is called. Therefore this program keeps its wheels in a folder for each
combination of torch, Python and CUDA, does not use pip's cache, and calls an operator as a test.
The folders are in $NC_WHEELS, or in nc_plugins/wheels of the user's cache folder. They belong to
the user alone. Beside each wheel is its SHA-256, which is checked before the wheel is installed.

Needs requirements/demo.txt to be installed.
"""

import argparse
import hashlib
import importlib.metadata
import itertools
import os
import platform
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from pathlib import Path

NAME, VERSION = 'onedl-mmcv', '2.3.6'
REQUIREMENT = f'{NAME}=={VERSION}'
PYTHON_TAG = f'cp{sys.version_info.major}{sys.version_info.minor}'
PIP = (sys.executable, '-m', 'pip', '--disable-pip-version-check')

CALL_NMS = """
from mmcv.ops import nms
import torch
boxes = torch.tensor([[0., 0., 9., 9.], [0., 0., 9., 8.], [20., 20., 29., 29.]])
_, kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
assert kept.tolist() == [0, 2], kept
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--no-build', action='store_true', help='do not compile')
    args = parser.parse_args()

    folder = wheel_folder()
    make_private(folder)
    wheel = find_wheel(folder)
    if wheel is None and args.no_build:
        print(f'mmcv {VERSION} without operators: enough for classification.', flush=True)
        # pip's isolated build environment has no torch, so mmcv does not compile its operators.
        install(REQUIREMENT)
        return
    if wheel is None:
        wheel = build_wheel(folder)
    print(f'mmcv {VERSION} with operators from {wheel}', flush=True)
    install(str(wheel))
    if not operators_work():
        sys.exit(f'mmcv.ops.nms fails with the wheel {wheel}: delete that file and run this again')


def wheel_folder() -> Path:
    """The folder for wheels for the installed torch, Python and CUDA."""
    try:
        torch_version = importlib.metadata.version('torch')
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f'no torch for {sys.executable}: install requirements/demo.txt first')
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    root = Path(os.environ.get('NC_WHEELS') or cache / 'nc_plugins' / 'wheels')
    cuda = '-cuda' if can_compile_cuda() else ''
    return root.absolute() / f'torch{torch_version}-{PYTHON_TAG}{cuda}'


def can_compile_cuda() -> bool:
    import torch

    return torch.cuda.is_available() and shutil.which('nvcc') is not None


def make_private(folder: Path) -> None:
    """Create ``folder`` for this user alone, and stop if it is somebody else's.

    A wheel without a hash is set aside if others could have written it.
    """
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if folder.parent.is_symlink() or folder.is_symlink():
        sys.exit(f'{folder} is behind a symbolic link: set NC_WHEELS to the folder that is meant')
    if not hasattr(os, 'geteuid'):  # Windows protects the user's folders
        return
    if state.st_uid != os.geteuid():
        sys.exit(f'{folder} belongs to another user: set NC_WHEELS to a folder of your own')
    folder.chmod(0o700)
    if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        for wheel in wheels(folder):
            if not hash_file(wheel).exists():
                set_aside(wheel, 'other users could have written it, and it has no hash')


def wheels(folder: Path) -> list[Path]:
    # The Python tag excludes py3-none-any, the wheel without operators.
    stem = f'{NAME.replace("-", "_")}-{VERSION}-{PYTHON_TAG}-{PYTHON_TAG}-'
    return sorted(folder.glob(f'{stem}*{platform.machine().lower()}.whl'))


def find_wheel(folder: Path) -> Path | None:
    """The wheel in ``folder`` whose hash is right. Other wheels are set aside.

    Versions before this one stored no hash. Only the user can write into the folder, so such a
    wheel is accepted, and its hash is stored.
    """
    for wheel in wheels(folder):
        record = hash_file(wheel)
        if wheel.is_symlink() or record.is_symlink():
            set_aside(wheel, 'it or its hash is a symbolic link')
        elif not record.exists():
            print(f'{wheel} has no hash yet: it is stored in {record.name}', flush=True)
            record.write_text(sha256(wheel))
            return wheel
        elif record.read_text().strip() != sha256(wheel):
            set_aside(wheel, f'its content is not that of the hash in {record.name}')
        else:
            return wheel
    return None


def hash_file(wheel: Path) -> Path:
    return wheel.with_name(f'{wheel.name}.sha256')


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def set_aside(wheel: Path, reason: str) -> None:
    """Rename a wheel, so that it is not used, and nothing of the user is deleted."""
    names = (wheel.with_name(f'{wheel.name}.rejected{n}') for n in itertools.count())
    name = next(name for name in names if not name.exists() and not name.is_symlink())
    wheel.rename(name)
    print(f'{wheel} is not used, because {reason}; it is now {name.name}', file=sys.stderr)


def build_wheel(folder: Path) -> Path:
    """Compile in a temporary folder, test the wheel, and move it into ``folder``."""
    from filelock import FileLock  # a dependency of torch, which wheel_folder() has found

    require_compiler()
    # A second build at the same time waits here and then finds the wheel.
    with FileLock(folder / '.lock'):
        wheel = find_wheel(folder)
        if wheel is not None:
            return wheel
        for leftover in folder.glob('.build-*'):
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(dir=folder, prefix='.build-') as temporary:
            built = compile_wheel(Path(temporary))
            wheel = folder / built.name
            os.replace(built, wheel)
            hash_file(wheel).write_text(sha256(wheel))
        return wheel


def compile_wheel(folder: Path) -> Path:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    env = dict(os.environ, MMCV_WITH_OPS='1')
    env.setdefault('MAX_JOBS', str(cores))
    # torch looks for ninja on the PATH, also if the virtual environment is not activated.
    env['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{env.get("PATH", os.defpath)}'
    if not can_compile_cuda():
        env['CUDA_VISIBLE_DEVICES'] = ''  # with a GPU but without nvcc the build would fail
    print(
        f"Compiling mmcv's operators with {env['MAX_JOBS']} jobs: about 15 minutes on two cores, "
        f'once for this torch and Python. The wheel is stored in {folder.parent}',
        flush=True,
    )
    start = time.monotonic()
    options = ('--no-build-isolation', '--no-cache-dir', '--no-deps', '--wheel-dir', folder)
    if subprocess.run([*PIP, 'wheel', *options, REQUIREMENT], env=env).returncode:
        sys.exit(f'{REQUIREMENT} did not compile: see the output above')
    wheel = next(iter(wheels(folder)), None)
    if wheel is None:
        sys.exit(f'{REQUIREMENT} was built without operators: is torch importable?')
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / 'trial')
    if not operators_work(folder / 'trial'):
        sys.exit(f'{wheel.name} was built, but mmcv.ops.nms fails: the wheel is not stored')
    print(f'Compiled in {(time.monotonic() - start) / 60:.0f} minutes.', flush=True)
    return wheel


def require_compiler() -> None:
    compilers = (os.environ.get('CXX') or 'c++', 'g++', 'clang++')
    if not any(shutil.which(name.split()[0]) for name in compilers):
        sys.exit("mmcv's operators need a C++ compiler: install g++ or clang, or set CXX")
    header = Path(sysconfig.get_path('include')) / 'Python.h'
    if not header.exists():
        sys.exit(f'{header} is missing: install the development package of this Python')


def install(requirement: str) -> None:
    options = ('--force-reinstall', '--no-deps', '--no-cache-dir', '--no-compile')
    if subprocess.run([*PIP, 'install', *options, requirement]).returncode:
        sys.exit(f'pip could not install {requirement}: see the output above')


def operators_work(package_folder: Path | None = None) -> bool:
    """Call mmcv.ops.nms in a new process, with the mmcv in ``package_folder`` if given."""
    env = dict(os.environ)
    if package_folder is not None:
        env['PYTHONPATH'] = str(package_folder)
    return subprocess.run([sys.executable, '-c', CALL_NMS], env=env).returncode == 0


if __name__ == '__main__':
    main()
