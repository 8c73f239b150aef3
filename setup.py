import os
import platform
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r"^__version__ = '([^']+)'", (ROOT / 'nc_plugins' / '__init__.py').read_text(), re.MULTILINE
).group(1)
README = ROOT / 'README.md'

# Ranges for people who install the package. The exact versions that are tested together are in
# requirements/, and `make setup` installs those.
CLASSIFICATION = [
    'torchvision',
    'onedl-mmengine>=0.10',
    'onedl-mmcv>=2.3',
    'onedl-mmpretrain>=1.3',
    'filelock',
    'rich',
    'matplotlib',
    'scipy>=1.15',
    'jinja2',
]
OPENMMLAB = [
    *CLASSIFICATION,
    'onedl-mmdetection>=3.5',
    'onedl-mmsegmentation>=1.4',
    'msgspec',
]
EXPORT = ['onnx', 'onnxscript']
DEV = [
    'pre-commit',
    'pytest',
    'pytest-xdist',
    'hypothesis',
    'ruff',
    'scikit-learn',
    'timm',
]


def report_not_built(reason: str) -> None:
    """Print why the compiled backend is missing and the command that builds it."""
    command = f'{sys.executable} -m pip install -v --no-build-isolation --no-deps --force-reinstall'
    print(
        f'nc_plugins: the compiled "cpu" backend was not built: {reason}. The package works '
        f'without it, slower on a CPU. To build it, run: {command} {ROOT.resolve()}',
        file=sys.stderr,
    )


def compiler_flags() -> list[str]:
    """Flags for the compiler that builds extensions.

    GCC compiles at::parallel_for, a template, for the OpenMP runtime that torch uses on Linux.
    Clang would bring a second OpenMP runtime (and Apple's has none), so nc_conv.cpp then calls
    torch's threads in another way.
    """
    compiler = os.environ.get('CXX') or sysconfig.get_config_var('CXX') or 'c++'
    version = subprocess.run([*compiler.split(), '--version'], capture_output=True, text=True)
    openmp = [] if 'clang' in version.stdout else ['-fopenmp']
    return ['-O3', '-fno-math-errno', '-Wno-psabi', *openmp]


def cpu_backend() -> dict:
    """Return the arguments of setup() that compile the C++ of the 'cpu' backend.

    The backend is optional: a build that is skipped or fails prints one sentence, and the package
    installs without it. The kernels are compiled for several instruction sets and chosen at run
    time, so a wheel also runs on machines other than the one that built it.
    """
    if platform.system() == 'Windows':
        report_not_built('the kernels use vector extensions of GCC and Clang that MSVC lacks')
        return {}
    # pip builds in an isolated environment. The torch to compile against is the installed one.
    sys.path.append(sysconfig.get_path('platlib'))
    try:
        from torch.utils.cpp_extension import BuildExtension, CppExtension

        flags = compiler_flags()
    except Exception as error:  # torch or the compiler is missing or broken
        report_not_built(f'torch or a C++ compiler is missing ({error})')
        return {}

    class OptionalBuild(BuildExtension):
        def build_extension(self, extension) -> None:
            try:
                super().build_extension(extension)
            except Exception:
                report_not_built('the compiler failed, see its messages above')

    extension = CppExtension(
        'nc_plugins.ops._C',
        sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('nc_plugins/csrc/*.cpp')),
        depends=[path.as_posix() for path in ROOT.glob('nc_plugins/csrc/*.h')],
        extra_compile_args=flags,
        extra_link_args=[flag for flag in flags if flag == '-fopenmp'],
        optional=True,  # setuptools then copies the library only where it was built
    )
    # Ninja's errors end the process, so the build does without it.
    build = OptionalBuild.with_options(use_ninja=False)
    return {'ext_modules': [extension], 'cmdclass': {'build_ext': build}}


setup(
    name='nc_plugins',
    version=VERSION,
    description='Normalized Convolution (arXiv 2005.05274) as a layer for OpenMMLab configs',
    long_description=README.read_text() if README.exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['nc_plugins', 'nc_plugins.*']),
    package_data={'nc_plugins': ['csrc/*', 'report/templates/*']},
    python_requires='>=3.10',
    install_requires=['torch>=2.6', 'psutil'],
    extras_require={
        'classification': CLASSIFICATION,
        'openmmlab': OPENMMLAB,
        'export': EXPORT,
        'dev': DEV,
    },
    **cpu_backend(),
)
