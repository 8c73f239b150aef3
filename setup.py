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

setup(
    name='nc_plugins',
    version=VERSION,
    description='Normalized Convolution (arXiv 2005.05274) as a layer for OpenMMLab configs',
    long_description=README.read_text() if README.exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['nc_plugins', 'nc_plugins.*']),
    python_requires='>=3.10',
    install_requires=['torch>=2.4'],
    extras_require={'classification': CLASSIFICATION, 'openmmlab': OPENMMLAB, 'dev': DEV},
)
