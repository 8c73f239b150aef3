"""Report layers and parameters of each config, and a short run of those in STEPS.

A run is one training iteration and one evaluated image, with the images in the folder that is the
first argument. The model has 8 base channels; with FULL_SIZE it has its own width.
"""

import json
import sys
from pathlib import Path

import mmcv.cnn  # noqa: F401
import torch
import torchvision.transforms.v2  # noqa: F401
from fresh_process import FULL_SIZE, STEPS, answer, census, open_config
from mmengine.registry import MODELS
from mmengine.runner import Runner


def report(path: str, folder: str) -> dict:
    cfg, found = open_config(path)
    model = MODELS.build(cfg.model)
    found['census'] = census(model)
    found['parameters'] = {
        name: sum(p.numel() for p in child.parameters())
        for name, child in model.named_children()
        if name.startswith(('generator', 'discriminator'))
    }
    found['plain'] = sorted(
        name
        for name, module in model.named_modules()
        if type(module) is torch.nn.Conv2d and name.startswith(('generator_AB', 'discriminator_A'))
    )
    if found['name'] in STEPS:
        found['run'] = run(cfg, Path(folder))
    return found


def run(cfg, folder: Path) -> dict:
    if not FULL_SIZE:
        for part in ('generator', 'discriminator'):
            cfg.model[part].base_channels = 8
            if 'num_groups' in cfg.model[part].norm_cfg:
                cfg.model[part].norm_cfg.num_groups = 4
    for name in ('train_dataloader', 'val_dataloader'):
        cfg[name].dataset.data_root = str(folder)
        cfg[name].update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.work_dir = str(folder / 'runs' / Path(cfg.filename).stem)
    cfg.log_level = 'ERROR'
    runner = Runner.from_cfg(cfg)
    runner.train()
    lines = Path(cfg.work_dir, 'history.jsonl').read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return {
        'iterations': runner.iter,
        'losses': next(e['losses'] for e in events if e['event'] == 'train'),
        'metrics': next(e['metrics'] for e in events if e['event'] == 'val'),
        'samples': [p.name for p in Path(cfg.work_dir, 'samples').iterdir()],
        'finite': all(p.isfinite().all().item() for p in runner.model.parameters()),
    }


if __name__ == '__main__':
    answer(report, sys.argv[1])
