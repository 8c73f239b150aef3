"""The types and required keys of a config."""

import pytest

pytest.importorskip('mmengine')
from mmengine.config import Config

from nc_plugins.engine.schema import check_structure, check_train_loop
from nc_plugins.engine.usage import UsageError

LOADER = {'dataset': {'type': 'D'}, 'sampler': {'type': 'DefaultSampler'}, 'batch_size': 2}
GOOD = {
    'model': {'type': 'M'},
    'work_dir': 'w',
    'train_dataloader': LOADER,
    'train_cfg': {'by_epoch': True, 'max_epochs': 2},
    'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.1}},
    'param_scheduler': [{'type': 'StepLR'}],
    'val_dataloader': LOADER,
    'val_cfg': {},
    'val_evaluator': [{'type': 'E'}],
    'default_hooks': {'logger': {'type': 'LoggerHook'}, 'timer': None},
    'custom_hooks': [{'type': 'H'}],
    'randomness': {'seed': 0},
    'load_from': None,
}


def edited(options):
    cfg = Config(GOOD)
    cfg.merge_from_dict(options)
    return cfg


def test_a_good_config_passes():
    check_structure(edited({}))
    check_structure(Config({'model': {'type': object}}))


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'model.type': 3}, 'model must be a dict with the key type, .* got {.type.: 3}'),
        ({'work_dir': 3}, 'work_dir must be a string, got 3'),
        ({'train_dataloader': 4}, 'train_dataloader must be a dict, got 4'),
        ({'train_dataloader.dataset': None}, 'no train_dataloader.dataset, which must be a dict'),
        (
            {'train_dataloader.batch_size': '2'},
            "batch_size must be an integer of at least 1, got '2'",
        ),
        ({'train_dataloader.batch_size': True}, 'batch_size must be an integer .*, got True'),
        ({'train_dataloader.num_workers': 10**9}, 'an integer from 0 to 512, got 1000000000'),
        ({'val_dataloader.dataset.data_root': ['a']}, r"data_root must be a string, got \['a'\]"),
        ({'train_cfg.max_epochs': 0}, 'train_cfg.max_epochs must be an integer of at least 1'),
        ({'train_cfg.val_interval': -1}, 'train_cfg.val_interval must be an integer of at least 1'),
        ({'optim_wrapper.optimizer.lr': -1}, 'optimizer.lr must be a number of at least 0, got -1'),
        ({'optim_wrapper.optimizer.lr': float('nan')}, 'a number of at least 0, got nan'),
        ({'optim_wrapper.part': {'optimizer': 3}}, 'optim_wrapper.part.optimizer must be a dict'),
        ({'param_scheduler': [3]}, r'param_scheduler must be a dict or a list of dicts, got \[3\]'),
        ({'default_hooks.logger': 5}, 'default_hooks.logger must be a dict with the key type'),
        ({'custom_hooks': [{'type': 'H'}, {}]}, 'custom_hooks.1 must be a dict with the key type'),
        ({'custom_hooks': 'H'}, "custom_hooks must be a list, got 'H'"),
        (
            {'randomness.seed': -1},
            'randomness.seed must be an integer from 0 to 4294967295, got -1',
        ),
        ({'log_level': 'LOUD'}, 'log_level must be one of .*INFO.*, got .LOUD.'),
        ({'val_cfg': None}, 'val_dataloader and val_evaluator without val_cfg'),
        ({'train_dataloader.sampler.type': 'InfiniteSampler'}, 'an epoch never ends'),
        ({'val_dataloader.sampler.type': 'InfiniteSampler'}, 'val_dataloader.sampler is an Inf'),
    ],
)
def test_a_wrong_key_is_named_with_its_value(options, words):
    with pytest.raises(UsageError, match=words):
        check_structure(edited(options))


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'train_cfg.max_epochs': None}, 'by_epoch=True, so it must have max_epochs'),
        ({'train_cfg.by_epoch': False}, 'by_epoch=False, so it must have max_iters'),
        ({'train_cfg.type': 'L'}, 'train_cfg must have one of the keys type and by_epoch'),
    ],
)
def test_a_loop_that_cannot_train_may_be_in_a_config_to_test(options, words):
    cfg = edited(options)
    check_structure(cfg)
    with pytest.raises(UsageError, match=words):
        check_train_loop(cfg)


def test_an_endless_sampler_may_train_by_iterations():
    loop = {'_delete_': True, 'type': 'IterBasedTrainLoop', 'max_iters': 3}
    check_structure(edited({'train_cfg': loop, 'train_dataloader.sampler.type': 'InfiniteSampler'}))
