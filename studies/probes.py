"""The sections of the page about single networks: features, smoothness, calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median, stdev

from nc_plugins.report import markdown

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
## Why centring matters: features at initialisation

An untrained ResNet-50 (torchvision's initialisation), 16 images of 96 pixels, after the last
residual block, mean of 3 seeds. `python studies/sensitivity.py` measures it.

- *Sensitivity*: relative change of the features after a relative change of the input by 0.002,
  the rounding error of bfloat16.
- *Constant part*: part of the squared features that is the mean of their channel, the same for
  all images and positions.
- *Rank*: effective number of directions of the features, at most 144 in the last three blocks,
  which have 3x3 positions.
"""

SENSITIVITY_READING = """\
The norms fall into two groups. Those that take the mean off each patch (NC), filter (WS) or
channel (BN, IN) keep features of high rank that respond to the input. With GN, LN and PN the
features behind a ReLU keep a positive mean, which the next convolution turns into a constant
for each channel: three quarters of the features and more say nothing about the image. NC
without centring behaves like PN. So the part of NC that GN lacks is the centring, and weight
standardisation has it too. Sensitivity has a price: rounding errors grow with depth in the same
way, so in bfloat16 the outputs of NC, WS+GN and IN are less exact than those of GN. Labatie et
al. (arXiv 2106.03743) describe the same collapse of layer and group normalisation. These are
features before training. Whether they explain the accuracy after training is not tested yet.
"""

SMOOTHNESS_TEXT = """\
## Smoothness along the gradient during training

The first 1,000 iterations of the thin ResNet-18 on CIFAR-10, batches of two, learning rate 0.01.
`python studies/smoothness.py` stops every 50 iterations and looks along the gradient of the next
batch, from half a step to four steps. Medians over the stops of three seeds.

- *Loss range*: largest minus smallest loss along the gradient, in nats.
- *Gradient change*: largest change of the gradient, relative to its norm.
- *Beta*: largest change of the gradient over the distance. It depends on the scale of the weights,
  so it compares methods only roughly.
"""

CALIBRATION_TEXT = """\
## A converted BatchNorm network

Validation accuracy on the handwritten digits (%), mean ± standard deviation of three seeds.
`python studies/calibration.py` trains a thin ResNet-18 with BatchNorm and batches of 32, converts
it with `nc_plugins.convert`, and trains it on with batches of two and a learning rate of 0.01.
Calibration uses 128 training images.
"""
CALIBRATION_READING = """\
Calibration makes GroupNorm keep nearly all accuracy at once. NC keeps about half of it, because it
also divides by the standard deviation of each patch, which no gain or bias can restore. After 1,000
steps the converted NC networks are within a percent of the BatchNorm network and ahead of those
that were trained from scratch, with calibration or without.
"""


def probe_sections(files: Mapping[str, Sequence[dict]]) -> Iterator[str]:
    """Markdown of the sections whose files have lines, by file name."""
    if lines := files[SENSITIVITY]:
        yield from (SENSITIVITY_TEXT, sensitivity_table(lines), '![Features](sensitivity.png)')
        yield SENSITIVITY_READING
    if lines := files[SMOOTHNESS]:
        yield from (SMOOTHNESS_TEXT, smoothness_table(lines))
    if lines := files[CALIBRATION]:
        yield from (CALIBRATION_TEXT, calibration_table(lines), CALIBRATION_READING)


def sensitivity_table(lines: Sequence[dict]) -> str:
    last = max(int(line['block']) for line in lines)
    names = {'sensitivity': 'sensitivity', 'constant': 'constant part', 'rank': 'rank'}
    table = []
    for norm in dict.fromkeys(line['norm'] for line in lines):
        some = [x for x in lines if x['norm'] == norm and int(x['block']) == last]
        table.append([norm, *(f'{fmean(float(x[key]) for x in some):.3g}' for key in names)])
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
    spread = f'{stdev(values):.{digits}f}' if len(values) > 1 else '-'
    return f'{fmean(values):.{digits}f} ± {spread}'
