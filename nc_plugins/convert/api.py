"""The door: checks the arguments, plans, applies the plan and reports."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.optim import Optimizer

from ..layers import NCAffine, split_affines
from ..layers.join import expect_output, forget_expected
from ..layers.neighbours import is_convolution
from .calibration import Calibration
from .kinds import TARGETS, norm_kind
from .plan import Row, make_plan
from .report import Report, frozen_norms
from .swap import first_class, swap_conv, swap_norm

# By name, because some of the classes are slow to import or missing in some builds of torch.
_WRAPPERS = {
    'DistributedDataParallel': 'convert model.module before you wrap it',
    'DataParallel': 'convert model.module before you wrap it',
    'FullyShardedDataParallel': 'convert the model before you wrap it',
    'FSDPModule': 'convert the model before fully_shard()',
    'OptimizedModule': 'convert the model before torch.compile()',
    'ScriptModule': 'convert the model before torch.jit',
    'DeployedConv': 'convert the model that was given to nc_plugins.deploy()',
}


def convert(
    model: nn.Module,
    to: str = 'NC',
    *,
    keep: Collection[str] = (),
    depthwise: str = 'keep',
    calibrate=None,
    optimizers: Iterable[Optimizer] = (),
    dry_run: bool = False,
) -> tuple[nn.Module, Report]:
    """Replace the convolutions and norms of a model by those of another kind, in place.

    Each convolution with a norm behind it becomes a normalized convolution, and the norm becomes
    its affine. Modules, Parameter objects, names, hooks, dtype, device, requires_grad and the
    training mode stay, so optimisers and checkpoints fit. Running statistics are dropped. The first
    forward checks that each affine receives the output of its convolution. docs/what-stays.md has
    the rules for what stays.

    Args:
        model: any module that is not wrapped (DistributedDataParallel, FSDP, torch.compile).
        to: 'NC', 'NCWS' (NC with weight standardisation), 'GN', 'WS+GN', 'BN', 'IN', 'LN'
            (GroupNorm with one group) or 'PN' (PositionalNorm).
        keep: paths of modules that stay, with everything inside them, such as ``'backbone.stem'``
            or ``'*.downsample'``. The partner of a kept convolution or norm stays too.
        depthwise: 'keep' leaves depthwise convolutions plain, 'convert' makes them NC.
        calibrate: a batch or a loader of batches. The weight and bias of the new norms are set so
            that their outputs have the mean and standard deviation of the old norms' outputs. A
            batch is a tensor, or a dict: the batch of an mmengine model, or keyword arguments. Of a
            tuple in a loader, the first item is the input.
        optimizers: optimisers of the model. They stay valid. Parameters that the conversion creates
            (of FrozenBatchNorm2d) join the first parameter group of the first.
        dry_run: print the plan and change nothing.

    Returns:
        The model, and a :class:`nc_plugins.convert.Report` that prints as a table.

    Raises:
        ValueError: an unknown ``to`` or ``depthwise``, a path in ``keep`` that the model does not
            have, or an optimiser of another model.
        TypeError: a wrapped or compiled model.

    Example::

        model, report = nc_plugins.convert(torchvision.models.resnet50(), to='NC')
        print(report)
    """
    _check_choice('to', to, TARGETS)
    _check_choice('depthwise', depthwise, ('keep', 'convert'))
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    optimizers = (optimizers,) if isinstance(optimizers, Optimizer) else tuple(optimizers)
    if calibrate is not None and to == 'BN':
        raise ValueError(
            "calibrate does not set running statistics, which to='BN' needs: run some batches in "
            'training mode instead'
        )
    _check_model(model)
    _check_keep(model, keep)
    _check_optimizers(model, optimizers)

    report = Report(to, make_plan(model, to, keep, depthwise))
    if dry_run:
        print(report)
        return model, report
    split_affines(model)
    calibration = None
    if calibrate is not None:
        norms = [row.module for row in report.converted if norm_kind(row.module)]
        calibration = Calibration(model, norms, calibrate)
    created = _apply(model, report.rows)
    if created and optimizers:
        optimizers[0].param_groups[0]['params'].extend(created)
    report.notes += _notes(report.rows, len(created), optimizers)
    if calibration:
        report.error_before = calibration.error()
        calibration.apply()
        report.error_after = calibration.error()
    return model, report


def _apply(model: nn.Module, rows: list[Row]) -> list[nn.Parameter]:
    """Swap the modules of the plan. Returns parameters that did not exist before."""
    known = {id(parameter) for parameter in model.parameters()}
    modules = dict(model.named_modules(remove_duplicate=False))
    like = next(model.parameters(), torch.empty(0))
    for row in rows:
        if isinstance(row.module, NCAffine):
            forget_expected(row.module)
        if row.kind is None:
            continue
        if is_convolution(row.module):
            swap_conv(row.module, row.kind)
        else:
            swap_norm(row.module, row.kind, _dims(row, modules), like)
    for row in rows:
        if row.kind == 'NC' and row.partners:
            expect_output(row.module, row.path, {path: modules[path] for path in row.partners})
    return [parameter for parameter in model.parameters() if id(parameter) not in known]


def _dims(row: Row, modules: dict[str, nn.Module]) -> int:
    """Number of axes of the positions that a norm sees."""
    if row.partners:
        return len(modules[row.partners[0]].kernel_size)
    name = first_class(row.module).__name__
    return 1 if name.endswith('1d') else 3 if name.endswith('3d') else 2


def _notes(rows: list[Row], created: int, optimizers: tuple) -> list[str]:
    notes = []
    if not any(row.kind for row in rows):
        notes.append('Nothing was converted.')
    frozen = len(frozen_norms(rows))
    if frozen:
        notes.append(
            f'Frozen (requires_grad=False) converted norms: {frozen}. Their gain and bias do not '
            'fit the new convolutions: report.unfreeze() makes them trainable, and in a config '
            'frozen_stages=-1 and norm_cfg=dict(requires_grad=True)'
        )
    if created and not optimizers:
        notes.append(
            f'{created} parameters of frozen BatchNorm layers were buffers before: an optimiser '
            'that was built earlier does not have them, so give it to convert(optimizers=...)'
        )
    return notes


def _check_choice(name: str, value, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ValueError(f'{name} is {value!r}, wanted one of {", ".join(map(repr, choices))}')


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f'model is a {type(model).__name__}, wanted an nn.Module')
    for path, module in model.named_modules():
        name = path or f'the model ({type(module).__name__})'
        for cls in type(module).__mro__:
            if cls.__name__ in _WRAPPERS:
                raise TypeError(f'{name} is a {cls.__name__}: {_WRAPPERS[cls.__name__]}')
        if module._compiled_call_impl is not None:
            raise TypeError(f'{name} is compiled: convert the model before .compile()')


def _check_keep(model: nn.Module, keep: tuple[str, ...]) -> None:
    paths = [path for path, _ in model.named_modules(remove_duplicate=False)]
    for pattern in keep:
        if not any(fnmatchcase(path, pattern) for path in paths):
            near = difflib.get_close_matches(pattern, paths, n=1)
            hint = f'; did you mean {near[0]!r}?' if near else ''
            raise ValueError(f'keep: the model has no module {pattern!r}{hint}')


def _check_optimizers(model: nn.Module, optimizers: tuple) -> None:
    ours = set(model.parameters())
    for index, optimizer in enumerate(optimizers):
        if not isinstance(optimizer, Optimizer):
            wanted = 'a torch.optim.Optimizer'
            raise TypeError(f'optimizers[{index}] is a {type(optimizer).__name__}, wanted {wanted}')
        if not any(p in ours for group in optimizer.param_groups for p in group['params']):
            raise ValueError(
                f'optimizers[{index}] has no parameter of the model: build it from the '
                'parameters of the model that is converted'
            )
