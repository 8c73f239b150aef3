"""Normalized Convolution (arXiv 2005.05274) for torch and the OpenMMLab registries.

Needs only torch. Where mmengine is installed, the import registers the layers and hooks.
"""

from importlib.util import find_spec

from .convert import convert
from .exporting import export
from .layers import deploy, layer_census

__version__ = '0.1.0'
__all__ = ['__version__', 'convert', 'deploy', 'export', 'layer_census']

if find_spec('mmengine') is not None:
    from . import engine  # noqa: F401
    from .convert import openmmlab  # noqa: F401
    from .layers import registry  # noqa: F401
