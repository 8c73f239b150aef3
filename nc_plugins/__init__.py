"""Normalized Convolution (arXiv 2005.05274) for torch and the OpenMMLab registries.

Works with torch alone; where mmengine is installed, importing this registers the layers and hooks.
"""

from importlib.util import find_spec

from .layers import layer_census

__version__ = '0.1.0'
__all__ = ['__version__', 'layer_census']

if find_spec('mmengine') is not None:
    from . import engine  # noqa: F401
    from .layers import registry  # noqa: F401
