"""The figures of docs/results/micro-batch."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's palette for colour-blind readers.
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000', '#999999')
_STYLES = ('-', '--')


def rates_png(curves: Mapping[str, Mapping[float, float]]) -> bytes:
    """Accuracy over learning rate, a line for each method: {method: {rate: percent}}."""
    figure, axes = _axes(1)
    for i, (name, points) in enumerate(curves.items()):
        x, y = zip(*sorted(points.items()), strict=True) if points else ((), ())
        axes[0].plot(x, y, marker='o', label=name, **_line(i))
    axes[0].set(xscale='log', xlabel='learning rate', ylabel='validation accuracy (%)')
    axes[0].legend(frameon=False)
    return _png(figure)


def sensitivity_png(lines: Sequence[Mapping[str, str]]) -> bytes:
    """Sensitivity and rank over depth, a line for each norm: the mean over the seeds."""
    figure, axes = _axes(2)
    blocks = sorted({int(line['block']) for line in lines})
    for ax, key in zip(axes, ('sensitivity', 'rank'), strict=True):
        for i, norm in enumerate(dict.fromkeys(line['norm'] for line in lines)):
            values = [
                fmean(float(x[key]) for x in lines if (x['norm'], int(x['block'])) == (norm, block))
                for block in blocks
            ]
            ax.plot(blocks, values, label=norm, **_line(i))
        ax.set(xlabel='residual block', ylabel=key, yscale='log', xticks=blocks[1::2])
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc='outside right center', frameon=False, fontsize=9
    )
    return _png(figure)


def _axes(columns: int):
    figure = Figure(figsize=(4.6 * columns + 0.4, 3.4), dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.grid(alpha=0.25, linewidth=0.6)
        ax.spines[['top', 'right']].set_visible(False)
    return figure, axes


def _line(i: int) -> dict:
    return {
        'color': _COLOURS[i % len(_COLOURS)],
        'linestyle': _STYLES[i // len(_COLOURS)],
        'markersize': 4,
    }


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format='png', metadata={'Software': None})
    return file.getvalue()
