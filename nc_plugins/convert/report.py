"""The result of convert(): what became of every convolution and norm."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from torch import nn

from .kinds import norm_kind
from .plan import Row


@dataclass
class Report:
    """What convert() did, or would do with ``dry_run=True``. ``str(report)`` is a table.

    Attributes:
        to: the argument of convert().
        rows: one :class:`nc_plugins.convert.Row` for each convolution and norm, in the order of
            the model.
        notes: sentences on what the user should know, such as frozen affines.
        error_before: relative error of the model's output to that of the model before the
            conversion, without calibration. None unless ``calibrate`` was given.
        error_after: the same after calibration.
    """

    to: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    error_before: float | None = None
    error_after: float | None = None

    @property
    def converted(self) -> list[Row]:
        """The rows of modules that became something else."""
        return [row for row in self.rows if row.kind]

    @property
    def left(self) -> list[Row]:
        """The rows of modules that stay, with the reason."""
        return [row for row in self.rows if not row.kind]

    def unfreeze(self) -> int:
        """Set requires_grad of the weight and bias of every converted norm.

        Give the parameters to the optimiser if it was built without them. A model that freezes its
        first stages in train(), as those of OpenMMLab do, needs ``frozen_stages=-1`` instead.

        Returns:
            The number of norms that were frozen.
        """
        norms = frozen_norms(self.rows)
        for norm in norms:
            for parameter in norm.parameters(recurse=False):
                parameter.requires_grad_(True)
        return len(norms)

    def summary(self) -> str:
        """The table's totals, and the notes, without the table."""
        became = Counter((_slot(row.module), row.kind) for row in self.converted)
        stay = Counter((_slot(row.module), None) for row in self.left)
        counts = [_sentence(count, *what) for what, count in (became | stay).items()]
        lines = [f'convert to {self.to}: {", ".join(counts) or "nothing to convert"}']
        if self.error_after is not None:
            lines.append(
                f'relative error of the output: {self.error_before:.3g}, '
                f'after calibration {self.error_after:.3g}'
            )
        return '\n'.join(lines + self.notes)

    def __str__(self) -> str:
        cells = [('module', 'is', 'becomes', 'because')]
        for row in self.rows:
            others = f' (also {", ".join(row.others)})' if row.others else ''
            cells.append((row.path + others, row.what, row.kind or 'stays', row.reason))
        widths = [max(len(line[column]) for line in cells) for column in range(3)]
        lines = [
            '  '.join([*(text.ljust(w) for text, w in zip(line, widths, strict=False)), line[3]])
            for line in cells
        ]
        return '\n'.join([line.rstrip() for line in lines] + [self.summary()])


def frozen_norms(rows: list[Row]) -> list[nn.Module]:
    """The converted norms whose weight or bias does not require gradients."""
    return [
        row.module
        for row in rows
        if row.kind
        and norm_kind(row.module)
        and any(not p.requires_grad for p in row.module.parameters(recurse=False))
    ]


def _sentence(count: int, slot: str, kind: str | None) -> str:
    one = count == 1
    verb = ('becomes' if one else 'become') if kind else ('stays' if one else 'stay')
    return ' '.join(filter(None, [str(count), slot if one else f'{slot}s', verb, kind]))


def _slot(module: nn.Module) -> str:
    return 'convolution' if hasattr(module, 'kernel_size') else 'norm'
