"""Compares trainings: reads run folders, writes tables, curves and a report. Needs no torch."""

from .fingerprint import fingerprint
from .jobs import Job, run_jobs
from .page import relative_path, write_report
from .progress import Screen
from .runs import Run, read_run
from .summary import MeanStd, Summary, comparisons, summarize
from .table import comparison_table, escaped, markdown, plain, results_csv, seeds_table

__all__ = [
    'Job',
    'MeanStd',
    'Run',
    'Screen',
    'Summary',
    'comparison_table',
    'comparisons',
    'escaped',
    'fingerprint',
    'markdown',
    'plain',
    'read_run',
    'relative_path',
    'results_csv',
    'run_jobs',
    'seeds_table',
    'summarize',
    'write_report',
]
