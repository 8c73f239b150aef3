"""The sections of the page about single networks: features, smoothness, calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median

from nc_plugins.report import MeanStd, markdown

SENSITIVITY, SMOOTHNESS, CALIBRATION = 'sensitivity.csv', 'smoothness.csv', 'calibration.csv'
LABELS = {
    'gn': 'GN',
    'gn-ws': 'WS+GN',
    'bn': 'BN',
    'nc': 'NC',
    'nc-ws': 'NC+WS',
    'ln': 'LN',
    'in': 'IN',
    'pn': 'PN',
    'evonorm': 'EvoNorm-S0',
    'frn': 'FRN',
    'none': 'no norm',
}
SENSITIVITY_TEXT = """\
## Features at initialisation

An untrained ResNet-50 (torchvision's initialisation) in training mode, 16 images of 96 pixels,
after the last residual block. Mean of the seeds 0 to 2, on 2026-11-25, CPU AMD EPYC, torch
2.11.0, code of commit 9797d9b. `python studies/sensitivity.py` measures it.

- *Sensitivity*: relative change of the features after a relative change of the input by 0.002,
  the rounding error of bfloat16.
- *Constant part*: part of the squared features that is the mean of their channel, the same for
  all images and positions.
- *Rank*: effective number of directions of the features, at most 143 in the last three blocks,
  which have 3x3 positions.
"""

SENSITIVITY_READING = """\
NC, NC+WS, WS+GN and IN have a rank of 114 to 125, BN has 68, and GN, LN and PN have 27 or less.
The first five take the mean off each patch, filter or channel. With
GN, LN and PN three quarters or more of the squared features are the same for all images and
positions. Without centring, NC is close to PN in all three measures. This suggests that the
centring makes the difference, and weight standardisation has it too. NC without scaling was not
measured.

A change of the size of a bfloat16 rounding error grows more with depth in the first five.
Training in bfloat16 was not measured here. Whether these features explain the accuracy after
training is not tested yet. Labatie et al. (arXiv 2106.03743) describe the same collapse of
layer and group normalisation.
"""

SMOOTHNESS_TEXT = """\
## Smoothness along the gradient during training

The first 1,000 iterations of the thin ResNet-18 on CIFAR-10, batches of two, learning rate 0.01.
`python studies/smoothness.py` stops every 50 iterations and looks along the gradient of the next
batch, from half a step to four steps. Medians over the 60 stops of the seeds 0 to 2, on 2026-11-25,
CPU AMD EPYC, torch 2.11.0.

- *Loss range*: largest minus smallest loss along the gradient, in nats.
- *Gradient change*: largest change of the gradient, relative to its norm.
- *Beta*: largest change of the gradient over the distance. It depends on the scale of the weights,
  so it compares methods only roughly.
"""

SMOOTHNESS_READING = """\
GN has the smallest loss range, gradient change and beta. NC's loss range is close to that of
GN, and its gradient changes most. So these runs do not show that the loss is smoother with NC
than with GN. They cover the beginning of the training of one thin network at one learning rate,
without a network that has no norm.
"""
CALIBRATION_TEXT = """\
## A converted BatchNorm network

Validation accuracy on the handwritten digits (%), mean ± standard deviation of the seeds 0 to
2, on 2026-11-25, CPU AMD EPYC, torch 2.11.0, code of commit 8c080f0. `python
studies/calibration.py` trains a thin ResNet-18 with BatchNorm and batches of 32, converts it
with `nc_plugins.convert`, and trains it on with batches of two and a learning rate of 0.01.
Calibration uses 128 training images.
"""
CALIBRATION_READING = """\
At once, calibrated GN has 94.6 % and calibrated NC 51.4 %. A likely reason is that NC also
divides by the standard deviation of each patch, which no gain or bias restores; this was not
tested. Training undoes the advantage: after 100 steps calibrated GN has less than GN without
calibration, and after 1,000 steps calibration makes no visible difference for NC. The networks
from scratch saw 2,000 images, the converted ones 16,000 more before the conversion. So the
comparison with scratch shows the value of the first training, not that of NC. One learning rate
was tried.
"""


def probe_sections(files: Mapping[str, Sequence[dict]]) -> Iterator[str]:
    """Markdown of the sections whose files have lines, by file name."""
    if lines := files[SENSITIVITY]:
        yield from (SENSITIVITY_TEXT, sensitivity_table(lines), '![Features](sensitivity.png)')
        yield SENSITIVITY_READING
    if lines := files[SMOOTHNESS]:
        yield from (SMOOTHNESS_TEXT, smoothness_table(lines), SMOOTHNESS_READING)
    if lines := files[CALIBRATION]:
        yield from (CALIBRATION_TEXT, calibration_table(lines), CALIBRATION_READING)


def sensitivity_table(lines: Sequence[dict]) -> str:
    last = max(int(line['block']) for line in lines)
    names = {'sensitivity': 'sensitivity', 'constant': 'constant part', 'rank': 'rank'}
    table = []
    for norm in dict.fromkeys(line['norm'] for line in lines):
        some = [x for x in lines if x['norm'] == norm and int(x['block']) == last]
        name = norm.replace('NCWS', 'NC+WS')
        table.append([name, *(f'{fmean(float(x[key]) for x in some):.3g}' for key in names)])
    return markdown((['norm', *names.values()], table))


def smoothness_table(lines: Sequence[dict]) -> str:
    table = []
    for method in dict.fromkeys(line['method'] for line in lines):
        some = [line for line in lines if line['method'] == method]
        ranges = [float(line['loss_high']) - float(line['loss_low']) for line in some]
        changes, betas = (
            [float(line[key]) for line in some] for key in ('gradient_change', 'beta')
        )
        values = [f'{median(ranges):.2f}', f'{median(changes):.2f}', f'{median(betas):.0f}']
        table.append([LABELS[method], *values])
    return markdown((['method', 'loss range', 'gradient change', 'beta'], table))


def calibration_table(lines: Sequence[dict]) -> str:
    top1 = {}
    for line in lines:
        key = line['to'], line['start'], int(line['steps'])
        top1.setdefault(key, []).append(float(line['top1']))
    steps = sorted({key[2] for key in top1 if key[1]})
    table = [
        [to, start, *(mean_std(top1[to, start, number], 1) for number in steps)]
        for to, start in dict.fromkeys(key[:2] for key in top1 if key[1])
    ]
    before = next(mean_std(values, 1) for key, values in top1.items() if not key[1])
    table.append(['the BatchNorm network', '', before, *[''] * (len(steps) - 1)])
    names = ['at once' if number == 0 else f'after {number:,} steps' for number in steps]
    return markdown((['converted to', 'start', *names], table))


def mean_std(values: Sequence[float], digits: int) -> str:
    summary = MeanStd.of(values)  # NaN if a training has diverged
    spread = '-' if summary.std is None else f'{summary.std:.{digits}f}'
    return f'{summary.mean:.{digits}f} ± {spread}'
