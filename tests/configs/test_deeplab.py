"""Each DeepLab config differs from its GN config only as its name says, and trains."""

import math

import pytest

pytest.importorskip('mmseg')
pytest.importorskip('mmcv._ext', reason="mmseg needs mmcv's compiled operators")
from fresh_process import CONFIGS, ask, check_registration
from fresh_process import load as load_config

# name -> (conv_cfg, norm_cfg, kind of convolution, kind of norm); None: as in the GN config
NC, NC_NORM = dict(type='NC'), dict(type='NC')
VARIANTS = {
    'nc': (NC, NC_NORM, 'NC', 'NCAffine'),
    'nc-ws': (dict(type='NCWS'), NC_NORM, 'NCWS', 'NCAffine'),
    'bn': (None, dict(type='SyncBN'), 'conv', 'BN'),
}
VOC = '4xb4-120k_voc12aug-512x512'
# family -> variants, number of convolutions that take conv_cfg, names of the plain convolutions
PREDICTORS = ['decode_head.conv_seg', 'auxiliary_head.conv_seg']
DEPTHWISE = [
    *(f'decode_head.aspp_modules.{n}.depthwise_conv.conv' for n in (1, 2, 3)),
    *(f'decode_head.sep_bottleneck.{n}.depthwise_conv.conv' for n in (0, 1)),
]
FAMILIES = {
    # 55 of ResNetV1c-50, 6 of the pyramid, 1 of the auxiliary head
    f'deeplabv3_r50-d8-scratch_{{}}_{VOC}': (list(VARIANTS), 62, PREDICTORS),
    # and 3 more of the decoder
    f'deeplabv3plus_r50-d8-scratch_{{}}_{VOC}': (list(VARIANTS), 65, [*DEPTHWISE, *PREDICTORS]),
    'deeplabv3plus_r18-d8_{}_1xb2_digits': (['nc'], 24, [*DEPTHWISE, PREDICTORS[0]]),
    'deeplabv3plus_r18-d8_{}_1xb2_camvid': (['nc'], 24, [*DEPTHWISE, PREDICTORS[0]]),
}
GN_FILES = [family.format('gn') for family in FAMILIES]
PAIRS = [(family, variant) for family, (variants, *_) in FAMILIES.items() for variant in variants]
ALL = sorted({*GN_FILES, *(family.format(variant) for family, variant in PAIRS)})
FULL = [name for name in ALL if 'r50' in name]
# The fast tests train one large model and every small one.
STEPS = [name for name in ALL if 'r18' in name or name == f'deeplabv3plus_r50-d8-scratch_nc_{VOC}']
PARTS = ('backbone', 'decode_head', 'auxiliary_head')


def load(name):
    return load_config(f'deeplab/{name}')


def without_slots(cfg):
    others = cfg.to_dict()
    others.pop('norm_cfg', None)  # variables of the config files
    others.pop('slots', None)
    slots = {
        part: {key: others['model'][part].pop(f'{key}_cfg', None) for key in ('conv', 'norm')}
        for part in PARTS
        if part in others['model']
    }
    return others, slots


def family_of(name):
    return next(family for family in FAMILIES if family.format(variant_of(name)) == name)


def variant_of(name):
    return name.split('_')[2]


def test_the_lists_above_name_every_file_on_disk():
    assert sorted(path.stem for path in (CONFIGS / 'deeplab').rglob('*.py')) == ALL


@pytest.mark.parametrize(('family', 'variant'), PAIRS)
def test_a_variant_differs_from_its_gn_config_only_in_its_slots(family, variant):
    ours, slots = without_slots(load(family.format(variant)))
    theirs, gn_slots = without_slots(load(family.format('gn')))
    assert ours == theirs
    conv, norm = VARIANTS[variant][:2]
    assert slots == {part: dict(conv=conv, norm=norm) for part in gn_slots}
    for part in gn_slots.values():
        assert part['conv'] is None and part['norm']['type'] == 'GN'


def test_deeplabv3plus_differs_from_deeplabv3_only_in_its_head():
    v3, plus = (load(name).to_dict() for name in GN_FILES[:2])
    head = plus['model']['decode_head']
    assert head.pop('type') == 'SepASPPHead'
    assert (head.pop('c1_in_channels'), head.pop('c1_channels')) == (256, 48)
    v3['model']['decode_head'].pop('type')
    assert plus.pop('custom_imports')['imports'] == [
        *v3.pop('custom_imports')['imports'],
        'nc_plugins.models.sep_aspp_head',
    ]
    assert plus == v3


@pytest.mark.parametrize('name', GN_FILES)
def test_it_trains_from_scratch_and_checks_its_data(name):
    cfg = load(name)
    model = cfg.model
    assert cfg.load_from is None
    assert model.get('pretrained') is None and model.backbone.get('init_cfg') is None
    assert model.backbone.zero_init_residual is False
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        for part in loader.dataset.get('datasets', [loader.dataset]):
            steps = {step.type: step for step in part.pipeline}
            assert {'LoadImageFromFile', 'LoadAnnotations'} <= steps.keys()
            assert 'ignore_empty' not in steps['LoadImageFromFile']
    assert {'type': 'DataCheckHook'} in cfg.custom_hooks  # checks the files of these steps
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end
    assert not any(step.by_epoch for step in cfg.param_scheduler)
    assert cfg.log_processor.by_epoch is cfg.default_hooks.checkpoint.by_epoch is False


@pytest.fixture(scope='module')
def reports():
    return ask('deeplab', ALL, steps=STEPS)


@pytest.fixture(scope='module')
def full_size_reports():
    return ask('deeplab', FULL, steps=FULL, full_size=True)


@pytest.mark.parametrize('name', ALL)
def test_it_loads_in_a_process_without_nc_plugins(name, reports):
    report = reports[name]
    check_registration(report)
    assert report['metric'] and report['unknown'] == []


@pytest.mark.parametrize('name', ALL)
def test_the_model_has_the_layers_in_its_name(name, reports):
    report, variant = reports[name], variant_of(name)
    _, layers, plain = FAMILIES[family_of(name)]
    conv, norm = VARIANTS[variant][2:] if variant != 'gn' else ('conv', 'GN')
    depthwise = sum(place in DEPTHWISE for place in plain)
    census = {norm: layers + depthwise, 'conv': len(plain)}
    census[conv] = census.get(conv, 0) + layers
    assert report['census'] == census
    if conv == 'conv':
        assert set(plain) < set(report['plain'])
    else:
        assert sorted(report['plain']) == sorted(plain)
    if norm == 'GN':
        assert report['groups'] == [load(name).model.backbone.norm_cfg.num_groups]


@pytest.mark.parametrize('name', STEPS)
def test_it_trains_one_iteration_and_predicts_one_image(name, reports):
    check_step(reports[name], side=128)


@pytest.mark.slow
@pytest.mark.parametrize('name', FULL)
def test_it_does_so_at_full_size(name, full_size_reports):
    check_step(full_size_reports[name], side=512)


def check_step(report, side):
    assert math.isfinite(report['loss'])
    assert report['untrained'] == []
    assert report['side'] == side
    assert report['predicted'] == [1, 100, 133]
