"""Reads a small data set as tools/train.py does, up to the last sample, without a training."""

from types import SimpleNamespace

import numpy as np
from mmengine.config import ConfigDict
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from torch import nn

from nc_plugins.datasets.loading import DataError
from nc_plugins.engine.data_check import DataCheckHook
from nc_plugins.engine.preflight import check_data
from nc_plugins.engine.usage import UsageError


class Head(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes


def read(scope, dataset, num_classes=2, evaluator=None):
    """Check, build and read ``dataset``: its samples, or the sentence of the error.

    Only the errors that the tools print without a traceback become a sentence.
    """
    name = 'val' if dataset.get('test_mode') else 'train'
    loader, loop = f'{name}_dataloader', f'{name}_loop'
    cfg = ConfigDict({loader: dict(dataset=dataset), f'{name}_evaluator': evaluator})
    model = nn.ModuleDict(dict(decode_head=Head(num_classes)))
    try:
        with DefaultScope.overwrite_default_scope(scope):
            check_data(cfg, [loader])
            built = DATASETS.build(dataset)
            loops = dict(train_loop=None, val_loop=None) | {
                loop: SimpleNamespace(dataloader=SimpleNamespace(dataset=built))
            }
            DataCheckHook().before_train(SimpleNamespace(model=model, **loops))
            return [built[index] for index in range(len(built))]
    except UsageError as error:
        return str(error)
    except DataError as error:
        return error.sentence


def picture(path, size=(40, 36), seed=0, mode='RGB', **options):
    """Write an image of random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(path, **options)
    return path
