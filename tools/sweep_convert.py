#!/usr/bin/env python3
"""Convert many networks of torchvision and timm to NC and write a Markdown page.

    python tools/sweep_convert.py --out docs/convert-networks.md

Every network is built with random weights and converted. Then one training step on small pictures
and the way there and back (NC, GN, NC) are checked. The networks are all of torchvision that have
BatchNorm, and those of timm in the list TIMM. A second call continues a run that was stopped.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from command_line import required_imports, run_tool

with required_imports():
    import timm
    import torch
    import torchvision
    from sweep_page import Row, fill, sentence, total
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm

    import nc_plugins
    from nc_plugins.convert import Report
    from nc_plugins.convert.kinds import norm_kind

TIMM = """
cs3darknet_s cspresnet50 darknet53 dla34 ecaresnet26t efficientnet_b0 efficientnet_lite0
efficientvit_b0 ese_vovnet19b_dw fastvit_t8 fbnetc_100 gernet_s ghostnet_050 hardcorenas_a
hgnetv2_b0 hrnet_w18_small inception_v4 lcnet_050 levit_128s mixnet_s mobilenetv2_050
mobilenetv3_small_050 mobilenetv4_conv_small mobileone_s0 mobilevit_xxs mobilevitv2_050
regnetx_002 regnety_002 repghostnet_050 repvgg_a0 res2net50_26w_4s resnest14d resnet18d resnetv2_50
resnetv2_50x1_bit rexnet_100 selecsls42 semnasnet_075 seresnext26d_32x4d skresnet18 spnasnet_100
starnet_s1 tf_efficientnet_b0 tf_mobilenetv3_small_075 tinynet_e vgg11_bn visformer_tiny
vit_tiny_r_s16_p8_224 xception41
"""
LARGEST = 200e6  # parameters; of larger networks only the plan is made
COLUMNS = [
    'network',
    'BatchNorm',
    'conv. to NC',
    'norms to NC',
    'norms to GN',
    'norms stay',
    'step',
]


def networks() -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    """Name and build function of every network."""
    for name in torchvision.models.list_models():
        module = torchvision.models.get_model_builder(name).__module__
        if '.quantization.' in module or '.optical_flow.' in module:
            continue  # quantised layers; two pictures as input
        options = {'weights': None}
        if '.detection.' in module or '.segmentation.' in module:
            options['weights_backbone'] = None
        if name in ('googlenet', 'inception_v3'):
            options['init_weights'] = False  # True is slow and warns
        yield f'torchvision {name}', lambda n=name, o=options: torchvision.models.get_model(n, **o)
    for name in TIMM.split():
        yield f'timm {name}', lambda n=name: timm.create_model(n, num_classes=10)


def loss(model: nn.Module) -> torch.Tensor:
    """A loss of ``model`` in training mode on small random pictures."""
    module, size = type(model).__module__, 64
    if '.detection.' in module:
        target = {
            'boxes': torch.tensor([[4.0, 4.0, 40.0, 50.0]]),
            'labels': torch.tensor([1]),
            'masks': torch.ones(1, size, size),
            'keypoints': torch.tensor([[[20.0, 20.0, 1.0]] * 17]),
        }
        model.transform.min_size, model.transform.max_size = (size,), size
        return sum(model([torch.rand(3, size, size)] * 2, [target] * 2).values())
    if module.endswith('.s3d'):
        return _size(model(torch.rand(1, 3, 16, 224, 224)))
    if '.video.' in module:
        return _size(model(torch.rand(1, 3, 8, size, size)))
    config = getattr(model, 'default_cfg', {})
    if 'inception' in module:
        size = 299
    elif module.endswith('.maxvit'):
        size = 224
    elif config.get('fixed_input_size'):
        size = config['input_size'][-1]
    return _size(model(torch.rand(2, 3, size, size)))


def _size(output) -> torch.Tensor | float:
    if isinstance(output, torch.Tensor):
        return output.square().mean()
    values = output.values() if isinstance(output, dict) else output or ()
    return sum(_size(value) for value in values)


def check(model: nn.Module) -> Report:
    """Convert ``model`` to NC, train a step, go there and back. Returns the report.

    Raises: RuntimeError if a gradient is not finite, or if the way back changes the state.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    _, report = nc_plugins.convert(model.train(), optimizers=optimizer)
    loss(model).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    infinite = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    if infinite or not gradients:
        raise RuntimeError(f'gradients are missing or not finite: {infinite[:3]}')
    optimizer.step()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for to in ('GN', 'NC'):
        nc_plugins.convert(model, to)
    after = model.state_dict()
    if list(before) != list(after) or any(not before[n].equal(after[n]) for n in before):
        raise RuntimeError('the state differs after NC -> GN -> NC')
    return report


def row(build: Callable[[], nn.Module]) -> Row | None:
    """The cells of a network behind its name, or None if it has no BatchNorm."""
    try:
        with torch.device('meta'):  # fast, and most networks without BatchNorm end here
            model = build()
    except NotImplementedError:
        model = build()
    norms = sum(isinstance(module, _BatchNorm) for module in model.modules())
    if not norms:
        return None
    small = sum(p.numel() for p in model.parameters()) <= LARGEST
    try:
        report = check(build()) if small else nc_plugins.convert(model)[1]
    except Exception as error:  # a row of the table, as the others
        return [str(norms), '', '', '', '', sentence(error)]
    kinds = [row.kind for row in report.rows if norm_kind(row.module)]
    convs = sum(row.kind in ('NC', 'NCWS') for row in report.rows) - kinds.count('NC')
    counts = [norms, convs, kinds.count('NC'), kinds.count('GN'), kinds.count(None)]
    return [*map(str, counts), 'trains' if small else 'too large']


def text(rows: list[Row], origin: str) -> str:
    """What stands above the table."""
    to_nc, to_gn, stay = (total(rows, column) for column in (3, 4, 5))
    results = [row[-1] for row in rows]
    return f"""# Networks converted to NC

Written by `python tools/sweep_convert.py --out docs/convert-networks.md` on
{origin}.

"BatchNorm" counts the BatchNorm layers of a network. The counts of norms also include its
GroupNorm layers. "trains" means: one training step on small random pictures with finite gradients,
then NC, GN, NC with equal names and values of the state dict. Of networks with more than
{LARGEST / 1e6:.0f} million parameters only the plan was made ("too large").

- {len(rows)} networks: {results.count('trains')} train, {results.count('too large')} are too large.
- {to_nc} norms became NC, {to_gn} became GroupNorm, and {stay} stay.
"""


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='Markdown page to write')
    parser.add_argument('--only', default='', help='networks whose name contains this')
    args = parser.parse_args(argv)
    warnings.simplefilter('ignore')
    jobs = ((name, partial(row, build)) for name, build in networks() if args.only in name)
    fill(args.out, COLUMNS, jobs, text, (torch, torchvision, timm))
    return 0


if __name__ == '__main__':
    sys.exit(run_tool(main, (OSError, ValueError)))
