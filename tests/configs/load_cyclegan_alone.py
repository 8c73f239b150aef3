"""Loads each config in a process of its own that has not imported nc_plugins; run by test_cyclegan.

    python load_cyclegan_alone.py FOLDER CONFIG ...

One JSON line a config: was nc_plugins absent before, the census and the numbers of parameters of
the built model, and for the names in RUN what one training iteration and one evaluated image on
images in FOLDER gave. These run at the config's own depth and size in pixels, and 8 channels wide.
The processes are forks of one that has imported torch and mmcv, which takes seconds.
"""

import json
import os
import sys
import warnings
from pathlib import Path

import mmcv.cnn  # noqa: F401
import torch
import torchvision.transforms.v2  # noqa: F401
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

RUN = os.environ.get('RUN', '').split(',')


def report(path: str, folder: Path) -> dict:
    found = {'name': Path(path).stem, 'absent_before': 'nc_plugins' not in sys.modules}
    cfg = Config.fromfile(path)
    found['present_after'] = 'nc_plugins' in sys.modules
    init_default_scope(cfg.default_scope)

    from nc_plugins import layer_census

    model = MODELS.build(cfg.model)
    found['census'] = {kind: n for kind, n in layer_census(model).items() if n}
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
    if found['name'] in RUN:
        found['run'] = run(cfg, folder)
    return found


def run(cfg, folder: Path) -> dict:
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


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    folder, *paths = sys.argv[1:]
    for path in paths:
        child = os.fork()
        if child == 0:
            print(json.dumps(report(path, Path(folder))), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f'{path}: exit status {status}')


if __name__ == '__main__':
    main()
