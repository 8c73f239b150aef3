"""The bar charts of docs/benchmarks."""

from __future__ import annotations

import io
from collections.abc import Sequence

from cases import CASES
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from results import Row

PLOTTED = {'time / conv+gn': '#0072B2', 'time / conv': '#E69F00'}  # metric -> colour


def plot(rows: Sequence[Row], title: str) -> bytes:
    """A PNG with a bar per shape and ratio, and its quantiles as a line."""
    # matplotlib draws from the bottom.
    cases = [*dict.fromkeys(row['case'] for row in rows)][::-1]
    figure = Figure(figsize=(7.5, 1.4 + 0.3 * len(cases)), dpi=100, layout='constrained')
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    for i, (metric, colour) in enumerate(PLOTTED.items()):
        those = [row for row in rows if row['metric'] == metric]
        at = [cases.index(row['case']) + 0.2 - 0.4 * i for row in those]
        low, middle, high = ([float(row[q]) for row in those] for q in ('q20', 'q50', 'q80'))
        ax.barh(at, middle, 0.38, color=colour, label=f'NC / ({metric.split(" / ")[1]})')
        ax.hlines(at, low, high, color='black', linewidth=1)
    ax.axvline(1, color='black', linewidth=0.8)
    ax.set_yticks(range(len(cases)), [CASES[case].label for case in cases], fontsize=8)
    ax.set(xlabel='ratio, lower is better for NC')
    ax.set_title(title, fontsize=9)
    ax.margins(y=0.01)
    ax.spines[['top', 'right']].set_visible(False)
    ax.legend(fontsize=8, frameon=False, loc='lower right')
    file = io.BytesIO()
    figure.savefig(file, format='png')
    return file.getvalue()
