"""What NC is held to: ratios, their bounds, and whether the measurements keep them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cases import CASES
from results import Row, geometric_mean

Table = tuple[list[str], list[list[str]]]  # header, rows


@dataclass(frozen=True)
class Figure:
    """A ratio over one case, or over all of a group (a name that ends in '/')."""

    text: str
    over: str
    metric: str
    must: float
    aim: float | None = None
    mode: str = 'train'
    system: str = 'nc'
    worst: bool = False  # the largest instead of the geometric mean
    at_least: bool = False  # larger is better

    def cases(self) -> list[str]:
        if self.over.endswith('/'):
            return [name for name in CASES if name.startswith(self.over)]
        return [self.over]

    def met(self, value: float, bound: float) -> bool:
        return value >= bound if self.at_least else value <= bound


CPU_FIGURES = (
    Figure('training, NC / (conv + GN), geometric mean', 'resnet50/', 'time / conv+gn', 1.08, 1.0),
    Figure('the same, worst shape', 'resnet50/', 'time / conv+gn', 1.30, 1.10, worst=True),
    Figure('training, NC / conv alone, geometric mean', 'resnet50/', 'time / conv', 1.15, 1.05),
    Figure(
        'inference, NC / (conv + GN), geometric mean', 'resnet50/', 'time / conv+gn', 1.0, 0.95,
        mode='fwd',
    ),
    Figure(
        'training, NC / (ConvWS + GN), geometric mean', 'resnet50/', 'time / convws+gn', 0.75, 0.65
    ),
    Figure(
        'training, im2col definition / NC, geometric mean', 'resnet50/', 'time / nc', 3.5,
        system='definition', at_least=True,
    ),
    Figure(
        'the same, 3x3 at 56x56', 'resnet50/2x64x56x56-k3-o64', 'time / nc', 14,
        system='definition', at_least=True,
    ),
    Figure(
        'bytes kept for backward, NC / (conv + GN), geometric mean', 'resnet50/', 'kept / conv+gn',
        1.02, 1.0,
    ),
    Figure(
        'peak memory of a ResNet-50 training step, NC / GN', 'models/resnet50-224-b2',
        'peak / conv+gn', 1.02, 1.0,
    ),
    Figure(
        'ResNet-50 training step at 224, batch 2, NC / GN', 'models/resnet50-224-b2',
        'time / conv+gn', 1.05, 1.0,
    ),
    Figure(
        'ResNet-18/CIFAR training step, batch 2, NC / GN', 'models/resnet18-cifar-32-b2',
        'time / conv+gn', 1.10, 1.0,
    ),
)  # fmt: skip
GPU_FIGURES = (
    Figure(
        'ResNet-50 layers at batch 32, training, NC / (conv + GN), geometric mean',
        'resnet50-b32/', 'time / conv+gn', 1.0,
    ),
    Figure(
        'the same, NC / conv alone', 'resnet50-b32/', 'time / conv', 1.15,
    ),
    Figure(
        'ResNet-50 training step, batch 32, NC / GN', 'models-b32/', 'time / conv+gn', 1.0
    ),
    Figure(
        'ResNet-50 training step, batch 2, NC / GN', 'models/resnet50-224-b2', 'time / conv+gn', 1.0
    ),
    Figure('peak memory, batch 32, NC / GN', 'models-b32/', 'peak / conv+gn', 1.0),
    Figure('peak memory, batch 2, NC / GN', 'models/resnet50-224-b2', 'peak / conv+gn', 1.0),
)  # fmt: skip


def figure_table(figures: Sequence[Figure], rows: Sequence[Row], unmeasured: str) -> Table:
    """A row a figure; ``rows`` are of one context, and ``unmeasured`` says why one has none."""
    found = {(r['case'], r['system'], r['mode'], r['metric']): float(r['q50']) for r in rows}
    table = []
    for figure in figures:
        sign = '>=' if figure.at_least else '<='
        bounds = [f'{sign} {figure.must:g}', f'{sign} {figure.aim:g}' if figure.aim else '-']

        def ratios(system: str, figure=figure) -> dict[str, float]:
            keys = {case: (case, system, figure.mode, figure.metric) for case in figure.cases()}
            return {case: found[key] for case, key in keys.items() if key in found}

        measured, want = ratios(figure.system), len(figure.cases())
        if len(measured) < want:
            why = f'not measured: {len(measured)} of {want} shapes' if measured else unmeasured
            table.append([figure.text, *bounds, why, '-', 'open'])
            continue
        value, words = _summed_up(figure, measured)
        reached = figure.aim is None or figure.met(value, figure.aim)
        verdict = 'met' if reached else 'met, aim missed'
        pair = ratios('nc-pair') if figure.system == 'nc' else {}
        table.append(
            [
                figure.text,
                *bounds,
                words,
                _summed_up(figure, pair)[1] if len(pair) == want else '-',
                verdict if figure.met(value, figure.must) else '**missed**',
            ]
        )
    return ['figure', 'must', 'aim', 'measured', 'as a pair', 'verdict'], table


def _summed_up(figure: Figure, ratios: dict[str, float]) -> tuple[float, str]:
    pick = min if figure.at_least else max
    case = pick(ratios, key=ratios.get)
    if len(ratios) == 1:
        return ratios[case], f'{ratios[case]:.3f}'
    worst = f'{ratios[case]:.2f} at {CASES[case].label}'
    if figure.worst:
        return ratios[case], worst
    mean = geometric_mean(list(ratios.values()))
    return mean, f'{mean:.3f} (worst {worst})'
