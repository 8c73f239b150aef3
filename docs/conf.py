"""Sphinx builds the pages of this folder into a site: `make docs`."""

import nc_plugins

project = 'nc_plugins'
author = 'the nc_plugins authors'
copyright = author
release = nc_plugins.__version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.mathjax',
    'sphinx-mathjax-offline',  # a copy of MathJax, so that formulas need no network
]
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = f'nc_plugins {release}'
html_copy_source = False
highlight_language = 'text'

myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 4  # with the names that GitHub gives them

autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
add_module_names = False
napoleon_use_ivar = True
