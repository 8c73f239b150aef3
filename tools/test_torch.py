"""Test the operator and the layers with another version of torch.

    python tools/test_torch.py 2.14.1
    python tools/test_torch.py 2.6.* tests/ops -k cpu

Creates build/torch-VERSION with a virtual environment and a copy of the package, compiles the C++
extension there and runs pytest in it. The repository's own environment and its compiled extension
are not touched. A later call with the same version reuses the environment, which takes about 6 GB:
delete the folder when it is no longer needed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ('nc_plugins', 'tests', 'setup.py', 'pyproject.toml', 'README.md')
TESTS = ('tests/ops', 'tests/layers')
# setuptools and wheel build the extension. tests/ops reads photographs of scikit-learn with Pillow.
NEEDS = (
    'setuptools>=80,<81', 'wheel', 'numpy', 'pytest', 'pytest-xdist', 'hypothesis', 'psutil',
    'scikit-learn', 'Pillow',
)  # fmt: skip


def copy_sources(target: Path) -> None:
    """Replace the files in ``target`` by the repository's, without what was compiled from them."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns('__pycache__', '*.so')
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy(source, target / name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('version', help='release of torch: 2.14.1, or 2.6.* for its last fix')
    parser.add_argument('pytest', nargs=argparse.REMAINDER, help='arguments for pytest')
    args = parser.parse_args()

    folder = ROOT / 'build' / f'torch-{args.version.removesuffix(".*")}'
    python = folder / 'venv' / 'bin' / 'python'
    source = folder / 'source'
    if not python.exists():
        subprocess.run([sys.executable, '-m', 'venv', folder / 'venv'], check=True)
    install = [python, '-m', 'pip', 'install', '--quiet', '--no-cache-dir', '--no-compile']
    subprocess.run([*install, f'torch=={args.version}', *NEEDS], check=True)
    copy_sources(source)
    subprocess.run([python, 'setup.py', 'build_ext', '--inplace'], cwd=source, check=True)
    tests = args.pytest or TESTS
    return subprocess.run([python, '-m', 'pytest', *tests], cwd=source).returncode


if __name__ == '__main__':
    sys.exit(main())
