"""The ratios that NC must reach, their bounds, and a table of measurements against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cases import CASES
from results import Row, geometric_mean

Table = tuple[list[str], list[list[str]]]  # header, rows


@dataclass(frozen=True)
class Target:
    """A ratio over one case or a group of cases, and its bounds.

    Args:
        text: the ratio in words, for the table.
        over: a case, or a group of cases if the name ends in '/'.
        metric: the metric of results.csv.
        limit: the bound that must hold.
        goal: the bound that we would like to reach; None if there is none.
        worst: take the worst case instead of the geometric mean.
        higher_is_better: bounds are lower bounds.
    """

    text: str
    over: str
    metric: str
    limit: float
    goal: float | None = None
    mode: str = 'train'
    system: str = 'nc'
    worst: bool = False
    higher_is_better: bool = False

    def cases(self) -> list[str]:
        if self.over.endswith('/'):
            return [name for name in CASES if name.startswith(self.over)]
        return [self.over]

    def met(self, value: float, bound: float) -> bool:
        return value >= bound if self.higher_is_better else value <= bound


CPU_TARGETS = (
    Target('training, NC / (conv + GN), geometric mean', 'resnet50/', 'time / conv+gn', 1.08, 1.0),
    Target('training, NC / (conv + GN), worst shape', 'resnet50/', 'time / conv+gn', 1.30, 1.10,
           worst=True),
    Target('training, NC / conv, geometric mean', 'resnet50/', 'time / conv', 1.15, 1.05),
    Target('inference, NC / (conv + GN), geometric mean', 'resnet50/', 'time / conv+gn', 1.0, 0.95,
           mode='fwd'),
    Target('training, NC / (ConvWS + GN), geometric mean', 'resnet50/', 'time / convws+gn', 0.75,
           0.65),
    Target('training, im2col definition / NC, geometric mean', 'resnet50/', 'time / nc', 3.5,
           system='definition', higher_is_better=True),
    Target('training, im2col definition / NC, 3x3 at 56x56', 'resnet50/2x64x56x56-k3-o64',
           'time / nc', 14, system='definition', higher_is_better=True),
    Target('bytes kept for backward, NC / (conv + GN), geometric mean', 'resnet50/',
           'kept / conv+gn', 1.02, 1.0),
    Target('peak memory of a ResNet-50 training step, NC / GN', 'models/resnet50-224-b2',
           'peak / conv+gn', 1.02, 1.0),
    Target('ResNet-50 training step at 224 pixels, batch 2, NC / GN', 'models/resnet50-224-b2',
           'time / conv+gn', 1.05, 1.0),
    Target('ResNet-18/CIFAR training step, batch 2, NC / GN', 'models/resnet18-cifar-32-b2',
           'time / conv+gn', 1.10, 1.0),
    Target('training, joined pair / layer with its own affine, geometric mean', 'resnet50/',
           'time / nc', 1.01, system='nc-pair'),
    Target('inference, joined pair / layer with its own affine, geometric mean', 'resnet50/',
           'time / nc', 1.01, mode='fwd', system='nc-pair'),
    Target('overhead on tiny tensors, training, NC / (conv + GN)', 'overhead/', 'time / conv+gn',
           1.5),
    Target('overhead on tiny tensors, inference, NC / (conv + GN)', 'overhead/', 'time / conv+gn',
           1.5, mode='fwd'),
)  # fmt: skip
GPU_TARGETS = (
    Target('ResNet-50 layers at batch 32, training, NC / (conv + GN), geometric mean',
           'resnet50-b32/', 'time / conv+gn', 1.0),
    Target('ResNet-50 layers at batch 32, training, NC / conv, geometric mean', 'resnet50-b32/',
           'time / conv', 1.15),
    Target('ResNet-50 training step, batch 32, NC / GN', 'models-b32/', 'time / conv+gn', 1.0),
    Target('ResNet-50 training step, batch 2, NC / GN', 'models/resnet50-224-b2', 'time / conv+gn',
           1.0),
    Target('peak memory, batch 32, NC / GN', 'models-b32/', 'peak / conv+gn', 1.0),
    Target('peak memory, batch 2, NC / GN', 'models/resnet50-224-b2', 'peak / conv+gn', 1.0),
)  # fmt: skip


def target_table(targets: Sequence[Target], rows: Sequence[Row], unmeasured: str) -> Table:
    """One row per target.

    Args:
        rows: measurements of one device, number of threads, dtype and layout.
        unmeasured: the text for targets without measurements.
    """
    found = {(r['case'], r['system'], r['mode'], r['metric']): float(r['q50']) for r in rows}
    table = []
    for target in targets:
        sign = '>=' if target.higher_is_better else '<='
        bounds = [f'{sign} {target.limit:g}', f'{sign} {target.goal:g}' if target.goal else '-']

        def ratios(system: str, target=target) -> dict[str, float]:
            keys = {case: (case, system, target.mode, target.metric) for case in target.cases()}
            return {case: found[key] for case, key in keys.items() if key in found}

        measured, total = ratios(target.system), len(target.cases())
        if len(measured) < total:
            why = f'not measured: {len(measured)} of {total} shapes' if measured else unmeasured
            table.append([target.text, *bounds, why, '-', 'open'])
            continue
        value, words = _aggregate(target, measured)
        at_goal = target.goal is None or target.met(value, target.goal)
        result = 'met' if at_goal else 'limit met, goal missed'
        pair = ratios('nc-pair') if target.system == 'nc' else {}
        table.append(
            [
                target.text,
                *bounds,
                words,
                _aggregate(target, pair)[1] if len(pair) == total else '-',
                result if target.met(value, target.limit) else '**missed**',
            ]
        )
    return ['ratio', 'limit', 'goal', 'measured', 'joined pair', 'result'], table


def _aggregate(target: Target, ratios: dict[str, float]) -> tuple[float, str]:
    """The value to compare with the bounds, and its text with the worst case."""
    pick = min if target.higher_is_better else max
    case = pick(ratios, key=ratios.get)
    if len(ratios) == 1:
        return ratios[case], f'{ratios[case]:.3f}'
    worst = f'{ratios[case]:.2f} at {CASES[case].label}'
    if target.worst:
        return ratios[case], worst
    mean = geometric_mean(list(ratios.values()))
    return mean, f'{mean:.3f} (worst {worst})'
