"""Replaces the convolutions and norms of built models, in place."""

from .api import convert
from .plan import Row
from .report import Report

__all__ = ['Report', 'Row', 'convert']
