"""Sphinx builds the pages of this folder into a site: `make docs`."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import nc_plugins

project = 'nc_plugins'
author = 'the nc_plugins authors'
release = nc_plugins.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = f'nc_plugins {release}'
html_copy_source = False
html_math_renderer = 'mathml'
highlight_language = 'text'

myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 4  # the anchors of headings are those of GitHub

autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
autodoc_member_order = 'bysource'
napoleon_custom_sections = [
    *('Shapes', 'Units', 'Dtypes', 'Source'),
]


def mathml(self, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers show without a script and without a network."""
    self.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def setup(app) -> None:
    app.add_html_math_renderer('mathml', (mathml, None), (mathml, None))
