"""Puts tools/ on the path, because the tools import their shared part as scripts do."""

import sys
from pathlib import Path

# Last, because the standard library also has a module named test.
sys.path.append(str(Path(__file__).resolve().parents[2] / 'tools'))
