#!/usr/bin/env python3
"""Convert the models of many upstream configs to NC and write a Markdown page.

    python tools/sweep_configs.py --out docs/convert-configs.md

Of each folder in FOLDERS the config with the shortest name is taken (behind a slash: the shortest
that fits). Its model is built with random weights, converted with the defaults of NCModel (`--to
NC`), and trained for one step on two random pictures.

A second call continues a run that was stopped.
"""

import argparse
import importlib
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from command_line import required_imports, run_tool

with required_imports():
    import mmdet
    import mmpretrain
    import mmseg
    import torch
    from mmdet.testing import demo_mm_inputs
    from mmengine.config import Config
    from mmengine.logging import MessageHub
    from mmengine.registry import MODELS, init_default_scope
    from mmengine.structures import PixelData
    from mmpretrain.structures import DataSample
    from mmseg.structures import SegDataSample
    from sweep_page import Row, fill, sentence, total
    from torch import nn

    import nc_plugins
    from nc_plugins.convert.kinds import norm_kind

FOLDERS = {
    'mmdet': """atss autoassign cascade_rcnn dcn/*-dconv-* ddod detectors double_heads dyhead
        efficientnet faster_rcnn fcos foveabox free_anchor fsaf gcnet gfl gn gn+ws guided_anchoring
        hrnet libra_rcnn/libra-faster* mask_rcnn nas_fcos nas_fpn paa pafpn regnet res2net resnest
        retinanet rtmdet scratch solo ssd/ssdlite* tood vfnet yolo yolof yolox""",
    'mmseg': """ann apcnet bisenetv1 bisenetv2 ccnet cgnet danet ddrnet deeplabv3 deeplabv3plus
        dmnet dnlnet emanet encnet erfnet fastfcn fastscnn fcn gcnet hrnet icnet isanet mobilenet_v2
        mobilenet_v3 nonlocal_net ocrnet pidnet psanet pspnet resnest segnext sem_fpn stdc unet
        upernet""",
    'mmpretrain': """cspnet densenet edgenext efficientnet efficientnet_v2 hrnet inception_v3
        mobilenet_v2 mobilenet_v3 mobileone mobilevit regnet repvgg res2net resnest resnet resnext
        seresnet shufflenet_v1 shufflenet_v2 van vgg/*bn* wrn""",
}
SIZE = 128  # pixels
LARGER = {'mmdet ddod': 384, 'mmdet ssd': 320, 'mmseg mobilenet_v3': 512, 'mmpretrain vgg': 224}
# TOOD multiplies with the weight of these convolutions and never calls them.
KEEP = {'mmdet tood': ['*_decomp.reduction_conv']}
COLUMNS = ['config', 'BN and GN', 'to NC', 'to GN', 'stay', 'why not NC', 'step']


def step(model: nn.Module, scope: str, size: int) -> None:
    """Train one step on random pictures. Raises RuntimeError if a gradient is not finite."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    if scope == 'mmdet':
        shapes = [[3, size, size]] * 2
        masks = any('mask' in name for name, _ in model.named_modules())
        data = demo_mm_inputs(2, shapes, num_classes=2, with_mask=masks, with_semantic=True)
    else:
        samples = [SegDataSample(), SegDataSample()] if scope == 'mmseg' else []
        for sample in samples:
            sample.gt_sem_seg = PixelData(data=torch.randint(0, 2, (1, size, size)))
            sample.gt_edge_map = sample.gt_sem_seg  # PIDNet learns edges too
        samples = samples or [DataSample().set_gt_label(label) for label in (0, 1)]
        pictures = [torch.randint(0, 256, (3, size, size), dtype=torch.uint8) for _ in samples]
        data = {'inputs': pictures, 'data_samples': samples}
        if scope == 'mmpretrain':
            data['inputs'] = torch.stack(pictures)
    MessageHub.get_current_instance().update_info('epoch', 0)  # TOOD's head reads it
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            raise RuntimeError(f'the gradient of {name} is not finite')
    optimizer.step()


def row(scope: str, folder: str, cfg: Config) -> Row:
    """The cells of a config behind its name."""
    key = f'{scope} {folder}'
    size, keep = LARGER.get(key, SIZE), KEEP.get(key, [])
    try:
        model = build(scope, cfg, size)
    except Exception as error:  # a row of the table, as the others
        return ['', '', '', '', '', f'is not built: {sentence(error)}']
    kinds = {module: kind for module in model.modules() if (kind := norm_kind(module))}
    norms = [module for module, kind in kinds.items() if kind in ('BN', 'GN')]
    try:
        _, report = nc_plugins.convert(model, keep=keep)
    except Exception as error:
        return [str(len(norms)), '', '', '', '', f'is not converted: {sentence(error)}']
    rows = {row.module: row for row in report.rows}
    became = Counter(rows[norm].kind for norm in norms)
    reasons = Counter(_reason(rows, rows[norm]) for norm in norms if rows[norm].kind != 'NC')
    why = '; '.join(f'{count} {reason}' for reason, count in reasons.most_common())
    try:
        step(model, scope, size)
        result = f'trains with keep={keep}' if keep else 'trains'
    except Exception as error:
        result = sentence(error)
    counts = [len(norms), became['NC'], became['GN'], became[None]]
    return [*map(str, counts), why, result]


def build(scope: str, cfg: Config, size: int) -> nn.Module:
    """The model of a config in training mode, for pictures of ``size`` pixels."""
    init_default_scope(scope)
    cfg.model.pop('pretrained', None)
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    preprocessor = cfg.model.get('data_preprocessor', {})
    preprocessor.pop('batch_augments', None)
    if 'size' in preprocessor:
        preprocessor.size = (size, size)
    return MODELS.build(cfg.model).train()


def _reason(rows: dict, row) -> str:
    """Why a norm does not become NC: the reason of the convolution before it, if it has one."""
    for other in rows.values():
        if other.path in row.partners and other.reason:
            return other.reason
    return row.reason


def text(rows: list[Row], origin: str) -> str:
    """What stands above the table."""
    norms, to_nc, to_gn, stay = (total(rows, column) for column in range(1, 5))
    trained = [row[0] for row in rows if row[-1].startswith('trains')]
    reasons = Counter()
    for row in rows:
        for count, reason in re.findall(r'(\d+) ([^;]+)', row[5]):
            reasons[re.sub(r'with \S+, which', 'with another, which', reason)] += int(count)
    why = '\n'.join(f'- {count}: {reason}' for reason, count in reasons.most_common())
    return f"""# Upstream configs converted to NC

Written by `python tools/sweep_configs.py --out docs/convert-configs.md` on
{origin}.

Of each folder that the script lists, the config with the shortest name is taken. Its model is built
with random weights, converted with the defaults of `--to NC`, and trained for one step on two
random pictures of {SIZE} pixels, or of the size that the network needs. All gradients must be
finite. TOOD needs `keep`: it multiplies with the weight of two convolutions and never calls them.
Without `keep`, the first forward stops with an error that names the pair and the remedy.

- {len(trained)} of {len(rows)} configs train.
- Of {norms} BatchNorm and GroupNorm layers, {to_nc} became NC ({to_nc / max(norms, 1):.1%}),
  {to_gn} became GroupNorm ({to_gn / max(norms, 1):.1%}), and {stay} stay.

Why the others did not become NC:

{why}
"""


def jobs(only: str) -> Iterator[tuple[str, Callable[[], Row]]]:
    for scope, folders in FOLDERS.items():
        root = Path(importlib.import_module(scope).__file__).parent / '.mim' / 'configs'
        for entry in folders.split():
            folder, _, name = entry.partition('/')
            if only in f'{scope} {folder}':
                paths = (root / folder).glob(f'{name or "*"}.py')
                configs = (
                    (path, Config.fromfile(path))
                    for path in sorted(paths, key=lambda path: (len(path.name), path.name))
                )
                path, cfg = next((path, cfg) for path, cfg in configs if 'model' in cfg)
                yield f'{scope} {folder}/{path.stem}', partial(row, scope, folder, cfg)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='Markdown page to write')
    parser.add_argument('--only', default='', help='configs whose scope and folder contain this')
    args = parser.parse_args(argv)
    warnings.simplefilter('ignore')
    fill(args.out, COLUMNS, jobs(args.only), text, (torch, mmdet, mmseg, mmpretrain))
    return 0


if __name__ == '__main__':
    sys.exit(run_tool(main, (OSError, ValueError)))
