"""Each classification config differs from its GN config only as its name says, and trains."""

import math

import pytest

pytest.importorskip('mmpretrain')
from fresh_process import CONFIGS, ask, check_registration
from fresh_process import load as load_config

# name -> (conv_cfg, norm_cfg, act_cfg, kind of convolution, kind of norm); None as in the GN config
NC, NC_NORM = dict(type='NC'), dict(type='NC')
VARIANTS = {
    'nc': (NC, NC_NORM, None, 'NC', 'NCAffine'),
    'nc-ws': (dict(type='NCWS'), NC_NORM, None, 'NCWS', 'NCAffine'),
    'bn': (None, dict(type='BN'), None, 'conv', 'BN'),
    'ln': (None, dict(type='GN', num_groups=1), None, 'conv', 'GN'),
    'in': (None, dict(type='IN', affine=True), None, 'conv', 'IN'),
    'pn': (None, dict(type='PN'), None, 'conv', 'PN'),
    'gn-ws': (dict(type='ConvWS'), None, None, 'ConvWS', 'GN'),
    'nc-selu': (NC, NC_NORM, dict(type='SELU', inplace=True), 'NC', 'NCAffine'),
    'nc-elu': (NC, NC_NORM, dict(type='ELU', inplace=True), 'NC', 'NCAffine'),
    'nc-gn': (NC, None, None, 'NC', 'GN'),
}
FAMILIES = {
    'resnet18_{}_1xb2-50e_cifar10': list(VARIANTS),
    'resnet50_{}_1xb2-50e_tiny-imagenet': list(VARIANTS),
    'resnet18_{}_1xb2_digits': list(VARIANTS),
    'resnet18-w16_{}_1xb2-6e_cifar10-5k': ['nc', 'bn', 'nc-ws'],
}
PAIRS = [(family, variant) for family, variants in FAMILIES.items() for variant in variants]
FULL = [
    'resnet18_gn_1xb2-50e_cifar10',
    'resnet50_gn_1xb2-50e_tiny-imagenet',
]
GN_FILES = [family.format('gn') for family in FAMILIES]
ALL = sorted({*GN_FILES, *(family.format(variant) for family, variant in PAIRS)})


def load(name):
    return load_config(f'classification/{name}')


def without_slots(cfg):
    others = cfg.to_dict()
    backbone = others['model']['backbone']
    slots = {key: backbone.pop(f'{key}_cfg', None) for key in ('conv', 'norm', 'act')}
    return others, slots


def variant_of(name):
    """The part of a config's name between the network and the schedule: gn, nc, nc-ws, ..."""
    return name.split('_')[1]


def test_the_lists_above_name_every_file_on_disk():
    assert {path.stem for path in (CONFIGS / 'classification').glob('*.py')} == {*ALL}
    assert len(ALL) == 3 * 11 + 4


@pytest.mark.parametrize(('family', 'variant'), PAIRS)
def test_a_variant_differs_from_its_gn_config_only_in_its_slots(family, variant):
    ours, slots = without_slots(load(family.format(variant)))
    theirs, gn_slots = without_slots(load(family.format('gn')))
    assert ours == theirs
    conv, norm, act = VARIANTS[variant][:3]
    assert slots == {'conv': conv, 'norm': norm or gn_slots['norm'], 'act': act or gn_slots['act']}
    assert slots != gn_slots


@pytest.mark.parametrize('name', GN_FILES)
def test_the_gn_config_has_plain_convolutions_and_two_channels_a_group(name):
    backbone = load(name).model.backbone
    assert 'conv_cfg' not in backbone
    assert backbone.norm_cfg.type == 'GN'
    assert backbone.base_channels / backbone.norm_cfg.num_groups == 2
    assert backbone.zero_init_residual is False
    assert backbone.act_cfg == dict(type='ReLU', inplace=True)


@pytest.mark.parametrize('name', GN_FILES)
def test_the_recipe_is_the_papers(name):
    cfg = load(name)
    optimizer = dict(type='SGD', lr=0.01, momentum=0.0, weight_decay=0.0)
    assert cfg.optim_wrapper == dict(type='OptimWrapper', optimizer=optimizer)
    assert cfg.param_scheduler == dict(type='StepLR', step_size=30, gamma=0.1, by_epoch=True)
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr == dict(base_batch_size=2, enable=False)
    assert cfg.train_cfg.val_interval == 1
    assert cfg.model.head.loss == dict(type='CrossEntropyLoss', loss_weight=1.0)
    assert cfg.val_evaluator[-1].type == 'ValLoss'
    if name in FULL:
        assert cfg.train_cfg.max_epochs == 50
    kinds = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    augmented = 'cifar10' in name
    assert ('RandomCrop' in kinds, 'RandomFlip' in kinds) == (augmented, augmented)


def test_the_thin_config_differs_from_the_cifar10_config_only_in_size():
    full, thin = (
        load(FULL[0]).to_dict(),
        load('resnet18-w16_gn_1xb2-6e_cifar10-5k').to_dict(),
    )
    thin['model']['backbone'].update(stem_channels=64, base_channels=64)
    thin['model']['backbone']['norm_cfg']['num_groups'] = 32
    thin['model']['head']['in_channels'] = 512
    thin['train_cfg']['max_epochs'] = 50
    thin['data_root'] = full['data_root']
    counts = []
    for split in ('train', 'val', 'test'):
        dataset = thin[f'{split}_dataloader']['dataset']
        counts.append(dataset.pop('per_class'))
        dataset['data_root'] = full['data_root']
    assert counts == [500, 100, 100]
    assert thin == full


@pytest.fixture(scope='module')
def reports():
    steps = [name for name in ALL if 'digits' in name or variant_of(name) in ('nc', 'in')]
    return ask('classification', ALL, steps=steps)


@pytest.mark.parametrize('name', ALL)
def test_it_loads_in_a_process_without_nc_plugins(name, reports):
    report = reports[name]
    check_registration(report)
    assert report['metrics'] == ['Accuracy', 'ValLoss']


@pytest.mark.parametrize('name', ALL)
def test_the_model_has_the_layers_in_its_name(name, reports):
    report, variant = reports[name], variant_of(name)
    _, _, act, conv, norm = VARIANTS.get(variant, (None, None, None, 'conv', 'GN'))
    layers = 53 if 'resnet50' in name else 20
    assert report['census'] == {conv: layers, norm: layers}
    assert report['activations'] == [(act or dict(type='ReLU'))['type']]
    if norm == 'GN':
        assert report['groups'] == [
            1 if variant == 'ln' else load(name).model.backbone.norm_cfg.num_groups
        ]


@pytest.mark.parametrize('variant', ['gn', *VARIANTS])
def test_it_takes_a_training_step(variant, reports):
    trained = [r for name, r in reports.items() if variant_of(name) == variant and 'loss' in r]
    assert trained
    for report in trained:
        assert math.isfinite(report['loss'])
        assert report['grads']
