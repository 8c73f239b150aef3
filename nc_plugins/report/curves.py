"""Plots of losses and metrics over training time, as in Figures 2 and 3 of the paper."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .measures import VAL_LOSS, measure, quality_measures
from .runs import Run
from .summary import Summary, has_val_loss

# Okabe and Ito's palette for colour-blind readers. With more configs the line style changes.
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000')
_STYLES = ('-', '--', '-.', ':')

Points = list[tuple[float, float]]


@rc_context({'text.parse_math': False})  # a $ in a name does not begin a formula
def curves_png(summaries: Sequence[Summary], title: str = '') -> bytes:
    """Plot training loss, validation loss and up to two metrics side by side, as a PNG.

    A line is the mean over the finished seeds of a config, and the band around it their minimum and
    maximum. A dotted line is an unfinished run. A cross marks the last finite value of a diverged
    run.
    """
    runs = [run for summary in summaries for run in summary.runs]
    panels: list[tuple[str, Callable[[Run], Points]]] = [('training loss', lambda run: run.train)]
    if has_val_loss(summaries):
        panels.append((measure(VAL_LOSS).label, lambda run: run.series(VAL_LOSS)))
    for quality in quality_measures(runs, limit=2):
        panels.append((quality.label, lambda run, key=quality.key: run.series(key)))

    rows = math.ceil(len(summaries) / 2)
    size = (4.4 * len(panels), 3.7 + 0.22 * rows)
    figure = Figure(figsize=size, dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    by_epoch = all(run.by_epoch for run in runs)
    for ax, (label, points) in zip(axes, panels, strict=True):
        for i, summary in enumerate(summaries):
            style = _STYLES[i // len(_COLOURS) % len(_STYLES)]
            _draw(ax, summary, points, _COLOURS[i % len(_COLOURS)], style)
        ax.set(title=label, xlabel='epoch' if by_epoch else 'iteration')
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        ax.grid(alpha=0.25, linewidth=0.6)
        ax.spines[['top', 'right']].set_visible(False)
        if not ax.lines:
            ax.text(0.5, 0.5, 'nothing recorded', ha='center', transform=ax.transAxes)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        columns = min(2, len(handles))
        figure.legend(
            handles, labels, loc='outside lower center', ncols=columns, frameon=False, fontsize=9
        )
    if title:
        figure.suptitle(title, fontsize=11)
    file = io.BytesIO()
    figure.savefig(file, format='png')
    return file.getvalue()


def _draw(ax, summary: Summary, points: Callable[[Run], Points], colour: str, style: str) -> None:
    label = f'{summary.name}, seeds: {summary.seeds_in_words()}'
    values: dict[float, list[float]] = {}
    for run in summary.done:
        for x, y in points(run):
            values.setdefault(x, []).append(y)
    # Only points with a value from every seed, so that all means are over the same seeds.
    xs = sorted(x for x, ys in values.items() if len(ys) == len(summary.done))
    means = [sum(values[x]) / len(values[x]) for x in xs]
    marker = 'o' if len(xs) < 25 else ''
    ax.plot(xs, means, style, color=colour, label=label, marker=marker, markersize=3, linewidth=1.6)
    if len(summary.done) > 1:
        # min() and max() may ignore a NaN, but the band must end where the line ends.
        finite = [all(map(math.isfinite, values[x])) for x in xs]
        low = [min(values[x]) if ok else math.nan for x, ok in zip(xs, finite, strict=True)]
        high = [max(values[x]) if ok else math.nan for x, ok in zip(xs, finite, strict=True)]
        ax.fill_between(xs, low, high, color=colour, alpha=0.18, linewidth=0)
    for run in summary.diverged:
        finite = [(x, y) for x, y in points(run) if math.isfinite(y)]
        if len(finite) < len(points(run)) and finite:
            ax.plot(*finite[-1], 'x', color=colour, markersize=9, markeredgewidth=2)
    for run in summary.missing:
        if points(run):
            ax.plot(*zip(*points(run), strict=True), ':.', color=colour, linewidth=1, markersize=3)
