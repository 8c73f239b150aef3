import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
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
    'jinja2',
    'matplotlib',
    'rich',
    'scikit-learn',
    'scipy>=1.15',
    'tensorboard',
]
OPENMMLAB = [
    *CLASSIFICATION,
    'onedl-mmdetection>=3.5',
    'onedl-mmsegmentation>=1.4',
    'msgspec',
]
EXPORT = ['onnx', 'onnxscript']
DOCS = ['sphinx', 'myst-parser', 'furo', 'sphinx-mathjax-offline']
DEV = [
    'pre-commit',
    'pytest',
    'pytest-xdist',
    'hypothesis',
    'markdown-it-py',
    'ruff',
    'scikit-learn',
    'timm',
]


def report_not_built(reason: str) -> None:
    """Print why the compiled backend is missing and the command that builds it."""
    command = [sys.executable, '-m', 'pip', 'install', '-v', '--no-deps', '--force-reinstall']
    print(
        f'nc_plugins: the compiled "cpu" backend was not built: {reason}. The package works '
        f'without it, slower on a CPU. To build it, run: {shlex.join([*command, str(ROOT)])}',
        file=sys.stderr,
    )


def installed_packages() -> list[str]:
    """The folders in which this Python finds packages when pip does not isolate a build.

    The build must use the torch that is installed there. A torch in [build-system] requires would
    be another one, and an extension that was compiled against it would not load.
    """
    isolation = ('PYTHONPATH', 'PYTHONNOUSERSITE')
    environment = {key: value for key, value in os.environ.items() if key not in isolation}
    command = [sys.executable, '-c', 'import sys; print(*sys.path[1:], sep="\\n")']
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


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


def cpu_backend() -> tuple[list, dict]:
    """Return the extension modules and the commands that compile the C++ of the 'cpu' backend.

    The backend is optional: a build that is skipped or fails prints one sentence, and the package
    installs without it. The kernels are compiled for several instruction sets and chosen at run
    time, so a wheel also runs on machines other than the one that built it.
    """
    if platform.system() == 'Windows':
        report_not_built('the kernels use vector extensions of GCC and Clang that MSVC lacks')
        return [], {}
    try:
        sys.path += [path for path in installed_packages() if path not in sys.path]
        from torch.utils.cpp_extension import BuildExtension, CppExtension

        flags = compiler_flags()
    except Exception as error:  # torch or the compiler is missing or broken
        report_not_built(f'torch or a C++ compiler is missing ({error})')
        return [], {}

    class OptionalBuild(BuildExtension):
        def finalize_options(self) -> None:
            super().finalize_options()
            self.force = True  # an older build in this folder may be for another torch

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
    return [extension], {'build_ext': build}


class BuildWithConfigs(build_py):
    """Also copy configs and tools, into the folder where OpenMMLab's packages have them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, 'nc_plugins', '.mim')
        shutil.rmtree(target, ignore_errors=True)  # of an older build
        target.mkdir(parents=True)
        for name in ('configs', 'tools'):
            caches = shutil.ignore_patterns('__pycache__')
            shutil.copytree(ROOT / name, target / name, ignore=caches)
        for index in ROOT.glob('model-index.yml'):  # for `mim search`
            shutil.copy(index, target)


extensions, commands = cpu_backend()
setup(
    name='nc_plugins',
    version=VERSION,
    description='Normalized Convolution (arXiv 2005.05274) as a layer for OpenMMLab configs',
    long_description=README.read_text() if README.exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['nc_plugins', 'nc_plugins.*']),
    py_modules=['nc_cli'],
    entry_points={'console_scripts': ['nc = nc_cli:main']},
    package_data={'nc_plugins': ['csrc/*', 'report/templates/*']},
    python_requires='>=3.10',
    install_requires=['torch>=2.6', 'psutil'],
    extras_require={
        'classification': CLASSIFICATION,
        'openmmlab': OPENMMLAB,
        'export': EXPORT,
        'dev': DEV,
        'docs': DOCS,
    },
    ext_modules=extensions,
    cmdclass={'build_py': BuildWithConfigs, **commands},
)
