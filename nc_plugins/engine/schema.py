"""The types and required keys of a config, as far as the Runner and our tools read it.

The classes that a config names check their own arguments. These rules are for keys that nobody
checks before the first use, which may come hours after the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .usage import UsageError, type_name

MISSING = object()


class Wanted(NamedTuple):
    """A condition, and the words for it in a message."""

    words: str
    holds: Callable[[Any], bool]


def integer(low: int, high: int | None = None) -> Wanted:
    words = f'an integer of at least {low}' if high is None else f'an integer from {low} to {high}'

    def holds(value) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and value >= low and (high is None or value <= high)

    return Wanted(words, holds)


def one_of(*values: str) -> Wanted:
    return Wanted('one of ' + ', '.join(values), lambda value: value in values)


def _is_type(value) -> bool:
    return callable(value) or (isinstance(value, str) and bool(value))


def _is_component(value) -> bool:
    return isinstance(value, dict) and _is_type(value.get('type'))


def _is_dict_or_dicts(value) -> bool:
    items = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(item, dict) for item in items)


TEXT = Wanted('a string', lambda value: isinstance(value, str))
FLAG = Wanted('True or False', lambda value: isinstance(value, bool))
COUNT = integer(1)
RATE = Wanted(
    'a number of at least 0',
    lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0,
)
TYPE = Wanted('the name of a class', _is_type)
DICT = Wanted('a dict', lambda value: isinstance(value, dict))
LIST = Wanted('a list', lambda value: isinstance(value, (list, tuple)))
COMPONENT = Wanted('a dict with the key type, the name of a class', _is_component)
DICTS = Wanted('a dict or a list of dicts', _is_dict_or_dicts)

LOADER = {
    '': DICT,
    '.dataset!': COMPONENT,
    '.dataset.data_root': TEXT,
    '.dataset.ann_file': TEXT,
    '.dataset.pipeline': LIST,
    '.sampler': COMPONENT,
    '.batch_sampler': COMPONENT,
    '.batch_size': COUNT,
    '.num_workers': integer(0, 512),
    '.collate_fn': COMPONENT,
    '.persistent_workers': FLAG,
    '.pin_memory': FLAG,
    '.drop_last': FLAG,
}
# A star stands for every key of a dict or every item of a list. A key that is missing or None is
# accepted, unless its rule ends with an exclamation mark.
RULES: dict[str, Wanted] = {
    'model!': COMPONENT,
    'default_scope': TEXT,
    'work_dir': TEXT,
    'load_from': TEXT,
    'resume': FLAG,
    'experiment_name': TEXT,
    **{f'{s}_dataloader{key}': LOADER[key] for s in ('train', 'val', 'test') for key in LOADER},
    'train_cfg': DICT,
    'train_cfg.type': TYPE,
    'train_cfg.by_epoch': FLAG,
    'train_cfg.max_epochs': COUNT,
    'train_cfg.max_iters': COUNT,
    'train_cfg.val_interval': COUNT,
    'train_cfg.val_begin': integer(0),
    'val_cfg': DICT,
    'test_cfg': DICT,
    'val_evaluator': DICTS,
    'test_evaluator': DICTS,
    'optim_wrapper': DICT,
    'optim_wrapper.type': TYPE,
    'optim_wrapper.constructor': TYPE,
    'optim_wrapper.optimizer': COMPONENT,
    'optim_wrapper.optimizer.lr': RATE,
    'optim_wrapper.*.optimizer': COMPONENT,  # of a model with several optimizers
    'optim_wrapper.*.optimizer.lr': RATE,
    'optim_wrapper.clip_grad': DICT,
    'optim_wrapper.paramwise_cfg': DICT,
    'optim_wrapper.accumulative_counts': COUNT,
    'param_scheduler': DICTS,
    'auto_scale_lr': DICT,
    'auto_scale_lr.enable': FLAG,
    'auto_scale_lr.base_batch_size': COUNT,
    'default_hooks': DICT,
    'default_hooks.*': COMPONENT,
    'custom_hooks': LIST,
    'custom_hooks.*!': COMPONENT,
    'visualizer': DICT,
    'visualizer.type': TYPE,
    'visualizer.vis_backends': LIST,
    'visualizer.vis_backends.*!': COMPONENT,
    'log_processor': DICT,
    'log_processor.window_size': COUNT,
    'log_processor.by_epoch': FLAG,
    'log_level': one_of('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG', 'NOTSET'),
    'env_cfg': DICT,
    'env_cfg.cudnn_benchmark': FLAG,
    'env_cfg.dist_cfg': DICT,
    'env_cfg.mp_cfg': DICT,
    'env_cfg.mp_cfg.mp_start_method': one_of('fork', 'spawn', 'forkserver'),
    'env_cfg.mp_cfg.opencv_num_threads': integer(0),
    'randomness': DICT,
    'randomness.seed': integer(0, 2**32 - 1),
    'randomness.deterministic': FLAG,
    'randomness.diff_rank_seed': FLAG,
}


def check_structure(cfg) -> None:
    """Check ``cfg`` against the rules. Builds nothing.

    Raises:
        UsageError: one sentence with the key, the value and what was wanted.
    """
    for rule, wanted in RULES.items():
        for key, value in _find(cfg, rule.removesuffix('!').split('.')):
            if value is MISSING or value is None:
                if rule.endswith('!'):
                    raise UsageError(f'the config has no {key}, which must be {wanted.words}')
            elif not wanted.holds(value):
                raise UsageError(f'{key} must be {wanted.words}, got {_short(value)}')
    _check_samplers(cfg)
    for part in ('val', 'test'):
        keys = [f'{part}_{name}' for name in ('dataloader', 'cfg', 'evaluator')]
        missing = [key for key in keys if cfg.get(key) is None]
        if 0 < len(missing) < len(keys):
            given = [key for key in keys if key not in missing]
            raise UsageError(
                f'the config has {" and ".join(given)} without {" and ".join(missing)}: '
                'set all of them, or set all to None'
            )


def check_train_loop(cfg) -> None:
    """Check the keys of train_cfg that exclude or need each other. A test does not need them."""
    loop = cfg.get('train_cfg') or {}
    if ('type' in loop) == ('by_epoch' in loop):
        raise UsageError('train_cfg must have one of the keys type and by_epoch')
    if (by_epoch := loop.get('by_epoch')) is not None:
        length = 'max_epochs' if by_epoch else 'max_iters'
        if loop.get(length) is None:
            raise UsageError(f'train_cfg has by_epoch={by_epoch}, so it must have {length}')


def _check_samplers(cfg) -> None:
    for name in ('train', 'val', 'test'):
        loop = cfg.get(f'{name}_cfg') or {}
        sampler = (cfg.get(f'{name}_dataloader') or {}).get('sampler') or {}
        by_epoch = loop.get('by_epoch') or type_name(loop) == 'EpochBasedTrainLoop'
        if type_name(sampler) == 'InfiniteSampler' and (by_epoch or name != 'train'):
            raise UsageError(
                f'{name}_dataloader.sampler is an InfiniteSampler, with which an epoch never ends: '
                'use DefaultSampler'
            )


def _find(value, parts: list[str], path: tuple = ()) -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of everything that the rule ``parts`` describes."""
    if not parts:
        yield '.'.join(map(str, path)), value
    elif parts[0] == '*' and isinstance(value, (dict, list, tuple)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _find(item, parts[1:], (*path, key))
    elif hasattr(value, 'items'):
        yield from _find(value.get(parts[0], MISSING), parts[1:], (*path, parts[0]))


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
