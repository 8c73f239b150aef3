"""Run folders to rows, tables, curves and a page. Knows neither torch nor OpenMMLab."""

from .fingerprint import fingerprint
from .launch import Job, run_jobs
from .page import write_report
from .progress import Screen
from .runs import Run, read_run
from .summary import Spread, Summary, comparisons, summarize
from .table import comparison_table, markdown, plain, results_csv, seeds_table

__all__ = [
    'Job',
    'Run',
    'Screen',
    'Spread',
    'Summary',
    'comparison_table',
    'comparisons',
    'fingerprint',
    'markdown',
    'plain',
    'read_run',
    'results_csv',
    'run_jobs',
    'seeds_table',
    'summarize',
    'write_report',
]
