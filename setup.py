import platform
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r"^__version__ = '([^']+)'", (ROOT / 'nc_plugins' / '__init__.py').read_text(), re.MULTILINE
).group(1)
README = ROOT / 'README.md'

# Ranges for people who install the package. The exact versions that are tested together are in
# requirements/, and `make setup` installs those.
CLASSIFICATION = ['torchvision', 'onedl-mmengine>=0.10', 'onedl-mmcv>=2.3', 'onedl-mmpretrain>=1.3']
OPENMMLAB = [*CLASSIFICATION, 'onedl-mmdetection>=3.5', 'onedl-mmsegmentation>=1.4']
DEV = ['pre-commit', 'pytest', 'pytest-xdist', 'ruff', 'scikit-learn', 'matplotlib']


def cpu_backend() -> dict:
    """The C++ of the 'cpu' backend, where torch is there to compile against.

    Optional: if it does not compile, or torch is missing, the package works without it, slower. The
    kernels are compiled for several instruction sets and chosen at run time, so a wheel runs on
    other machines than the one that built it.
    """
    try:
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ImportError:
        print('no torch to compile against (use --no-build-isolation): no "cpu" backend')
        return {}
    if platform.system() == 'Windows':  # the kernels are written with GCC's vectors
        return {}
    extension = CppExtension(
        'nc_plugins.ops._C',
        sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('nc_plugins/csrc/*.cpp')),
        depends=[path.as_posix() for path in ROOT.glob('nc_plugins/csrc/*.h')],
        extra_compile_args=['-O3', '-fopenmp', '-fno-math-errno', '-Wno-psabi'],
        extra_link_args=['-fopenmp'],
    )
    extension.optional = True
    build = BuildExtension.with_options(use_ninja=False)  # whose errors setuptools can pass over
    return {'ext_modules': [extension], 'cmdclass': {'build_ext': build}}


setup(
    name='nc_plugins',
    version=VERSION,
    description='Normalized Convolution (arXiv 2005.05274) as a layer for OpenMMLab configs',
    long_description=README.read_text() if README.exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['nc_plugins', 'nc_plugins.*']),
    package_data={'nc_plugins': ['csrc/*']},
    python_requires='>=3.10',
    install_requires=['torch>=2.4'],
    extras_require={'classification': CLASSIFICATION, 'openmmlab': OPENMMLAB, 'dev': DEV},
    **cpu_backend(),
)
