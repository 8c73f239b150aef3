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

# Okabe and Ito's palette for colour-blind readers, with grey for black, which a dark page would
# hide. With more configs the line style changes.
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#808080')
INK = '#3c4149'
_STYLES = ('-', '--', '-.', ':')

Points = list[tuple[float, float]]


def line_style(index: int) -> tuple[str, str]:
    """Colour and matplotlib's line style of the config with this index."""
    return (
        _COLOURS[index % len(_COLOURS)],
        _STYLES[index // len(_COLOURS) % len(_STYLES)],
    )


def line_label(summary: Summary) -> str:
    return f'{summary.name}, seeds: {summary.seeds_in_words()}'


@rc_context({'text.parse_math': False})  # a $ in a name does not begin a formula
def curves_png(summaries: Sequence[Summary]) -> bytes:
    """Plot training loss, validation loss and up to two metrics side by side, as a PNG.

    A line is the mean over the finished seeds of a config, and the band around it their minimum and
    maximum. A dotted line is an unfinished run. A cross marks the last finite value of a diverged
    run.
    """
    panels = _panels(summaries)
    rows = math.ceil(len(summaries) / 2)
    size = (4.4 * len(panels), 3.7 + 0.22 * rows)
    figure = Figure(figsize=size, dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (label, points) in zip(axes, panels, strict=True):
        _draw_panel(ax, summaries, label, points)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        columns = min(2, len(handles))
        figure.legend(
            handles, labels, loc='outside lower center', ncols=columns, frameon=False, fontsize=9
        )
    file = io.BytesIO()
    figure.savefig(file, format='png')
    return file.getvalue()


def curves_svg(summaries: Sequence[Summary]) -> list[tuple[str, bytes]]:
    """(label, SVG) for each panel of :func:`curves_png`, transparent and without legend.

    Text, axes and grid have the colour ``INK``, which nothing else has.
    """
    style = {
        'text.parse_math': False,
        'svg.hashsalt': 'nc_plugins',  # the same bytes every time
        **dict.fromkeys(('text.color', 'axes.labelcolor', 'axes.edgecolor'), INK),
        **dict.fromkeys(('xtick.color', 'ytick.color', 'grid.color'), INK),
    }
    drawn = []
    with rc_context(style):
        for label, points in _panels(summaries):
            figure = Figure(figsize=(4.4, 3.3), layout='constrained')
            _draw_panel(figure.subplots(), summaries, label, points)
            file = io.BytesIO()
            figure.savefig(file, format='svg', transparent=True, metadata={'Date': None})
            drawn.append((label, file.getvalue()))
    return drawn


def _panels(summaries: Sequence[Summary]) -> list[tuple[str, Callable[[Run], Points]]]:
    runs = [run for summary in summaries for run in summary.runs]
    panels: list[tuple[str, Callable[[Run], Points]]] = [('training loss', lambda run: run.train)]
    if has_val_loss(summaries):
        panels.append((measure(VAL_LOSS).label, lambda run: run.series(VAL_LOSS)))
    for quality in quality_measures(runs, limit=2):
        panels.append((quality.label, lambda run, key=quality.key: run.series(key)))
    return panels


def _draw_panel(
    ax, summaries: Sequence[Summary], label: str, points: Callable[[Run], Points]
) -> None:
    for i, summary in enumerate(summaries):
        _draw(ax, summary, points, *line_style(i))
    by_epoch = all(run.by_epoch for summary in summaries for run in summary.runs)
    ax.set(title=label, xlabel='epoch' if by_epoch else 'iteration')
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.spines[['top', 'right']].set_visible(False)
    if not ax.lines:
        ax.text(0.5, 0.5, 'nothing recorded', ha='center', transform=ax.transAxes)


def _draw(ax, summary: Summary, points: Callable[[Run], Points], colour: str, style: str) -> None:
    values: dict[float, list[float]] = {}
    for run in summary.done:
        for x, y in points(run):
            values.setdefault(x, []).append(y)
    # Only points with a value from every seed, so that all means are over the same seeds.
    xs = sorted(x for x, ys in values.items() if len(ys) == len(summary.done))
    means = [sum(values[x]) / len(values[x]) for x in xs]
    marker = 'o' if len(xs) < 25 else ''
    ax.plot(
        xs,
        means,
        style,
        color=colour,
        label=line_label(summary),
        marker=marker,
        markersize=3,
        linewidth=1.6,
    )
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
