"""Puts tools/ and this folder on the path, for the tools and for configs with custom_imports."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parents[1] / 'tools'), str(HERE)]
