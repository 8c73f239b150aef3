"""Loads each config in a process of its own that has not imported nc_plugins; run by test_configs.

    python load_alone.py CONFIG ...

One JSON line a config: was nc_plugins absent before, the census of the built model, what it
activates with, and with a name in STEP the loss of one training step. The processes are forks of
one that has imported mmpretrain, which takes seconds.
"""

import json
import os
import sys
from pathlib import Path

import mmpretrain.models  # noqa: F401
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmpretrain.registry import HOOKS, METRICS
from mmpretrain.structures import DataSample

STEP = os.environ.get('STEP', '').split(',')


def report(path: str) -> dict:
    found = {'name': Path(path).stem, 'absent_before': 'nc_plugins' not in sys.modules}
    cfg = Config.fromfile(path)
    found['present_after'] = 'nc_plugins' in sys.modules
    init_default_scope(cfg.default_scope)
    hooks = [hook.type for hook in cfg.custom_hooks]
    found['hooks'] = [name for name in hooks if HOOKS.get(name) is not None]
    found['metrics'] = [m.type for m in cfg.val_evaluator if METRICS.get(m.type) is not None]

    from nc_plugins import layer_census

    # A narrow model has the same layers; 32 channels still divide into 32 groups.
    width = 32
    expansion = 4 if cfg.model.backbone.depth == 50 else 1
    cfg.model.backbone.update(stem_channels=width, base_channels=width)
    cfg.model.head.in_channels = width * 8 * expansion
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    found['census'] = layer_census(model)
    found['groups'] = sorted({m.num_groups for m in model.modules() if hasattr(m, 'num_groups')})
    acts = [m for m in model.modules() if type(m).__module__ == 'torch.nn.modules.activation']
    found['activations'] = sorted({type(m).__name__ for m in acts})
    if found['name'] in STEP:
        model.init_weights()
        size = 64 if cfg.model.backbone.depth == 50 else 32
        samples = [DataSample().set_gt_label(label) for label in (0, 1)]
        loss = model.train()(torch.randn(2, 3, size, size), samples, mode='loss')['loss']
        loss.backward()
        found['loss'] = loss.item()
        found['grads'] = all(p.grad is not None for p in model.parameters())
    return found


def main() -> None:
    torch.set_num_threads(1)
    for path in sys.argv[1:]:
        child = os.fork()
        if child == 0:
            print(json.dumps(report(path)), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f'{path}: exit status {status}')


if __name__ == '__main__':
    main()
