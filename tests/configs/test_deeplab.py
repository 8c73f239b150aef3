"""The DeepLab configs: what twins share, what they are made of, and that they train and predict."""

import math
from pathlib import Path

import pytest

pytest.importorskip('mmseg')
pytest.importorskip('mmcv._ext', reason="mmseg needs mmcv's compiled operators")
from alone import FULL_SIZE, ask, check_loads
from mmengine.config import Config

FOLDER = Path(__file__).parents[2] / 'configs' / 'deeplab'

# name -> (conv_cfg, norm_cfg, kind of convolution, kind of norm); None: as the GN file
NC, NC_NORM = dict(type='NC'), dict(type='NC')
TWINS = {
    'nc': (NC, NC_NORM, 'NC', 'NCAffine'),
    'nc-ws': (dict(type='NCWS'), NC_NORM, 'NCWS', 'NCAffine'),
    'bn': (None, dict(type='SyncBN'), 'conv', 'BN'),
}
VOC = '4xb4-120k_voc12aug-512x512'
# family -> its twins, its convolutions that take conv_cfg, and the plain ones by name
PREDICTORS = ['decode_head.conv_seg', 'auxiliary_head.conv_seg']
DEPTHWISE = [
    *(f'decode_head.aspp_modules.{n}.depthwise_conv.conv' for n in (1, 2, 3)),
    *(f'decode_head.sep_bottleneck.{n}.depthwise_conv.conv' for n in (0, 1)),
]
FAMILIES = {
    # 55 of ResNetV1c-50, 6 of the pyramid, 1 of the auxiliary head
    f'deeplabv3_r50-d8-scratch_{{}}_{VOC}': (list(TWINS), 62, PREDICTORS),
    # and 3 more of the decoder
    f'deeplabv3plus_r50-d8-scratch_{{}}_{VOC}': (list(TWINS), 65, [*DEPTHWISE, *PREDICTORS]),
    'deeplabv3plus_r18-d8_{}_1xb2_digits': (['nc'], 24, [*DEPTHWISE, PREDICTORS[0]]),
    'deeplabv3plus_r18-d8_{}_1xb2_camvid': (['nc'], 24, [*DEPTHWISE, PREDICTORS[0]]),
}
GN_FILES = [family.format('gn') for family in FAMILIES]
PAIRS = [(family, twin) for family, (twins, *_) in FAMILIES.items() for twin in twins]
ALL = sorted({*GN_FILES, *(family.format(twin) for family, twin in PAIRS)})
PARTS = ('backbone', 'decode_head', 'auxiliary_head')


def load(name):
    return Config.fromfile(FOLDER / f'{name}.py', import_custom_modules=False)


def without_slots(cfg):
    rest = cfg.to_dict()
    rest.pop('norm_cfg', None)  # names in the config files
    rest.pop('slots', None)
    slots = {
        part: {key: rest['model'][part].pop(f'{key}_cfg', None) for key in ('conv', 'norm')}
        for part in PARTS
        if part in rest['model']
    }
    return rest, slots


def family_of(name):
    return next(family for family in FAMILIES if family.format(twin_of(name)) == name)


def twin_of(name):
    return name.split('_')[2]


def test_the_lists_above_name_every_file_on_disk():
    assert sorted(path.stem for path in FOLDER.rglob('*.py')) == ALL


@pytest.mark.parametrize(('family', 'twin'), PAIRS)
def test_a_twin_differs_from_its_gn_file_in_its_slots_alone(family, twin):
    ours, slots = without_slots(load(family.format(twin)))
    theirs, gn_slots = without_slots(load(family.format('gn')))
    assert ours == theirs
    conv, norm = TWINS[twin][:2]
    assert slots == {part: dict(conv=conv, norm=norm) for part in gn_slots}
    for part in gn_slots.values():
        assert part['conv'] is None and part['norm']['type'] == 'GN'


def test_deeplabv3plus_is_deeplabv3_but_for_its_head():
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
def test_no_checkpoint_favours_a_twin_and_labels_are_checked(name):
    cfg = load(name)
    model = cfg.model
    assert cfg.load_from is None
    assert model.get('pretrained') is None and model.backbone.get('init_cfg') is None
    assert model.backbone.zero_init_residual is False
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        for part in loader.dataset.get('datasets', [loader.dataset]):
            steps = {step.type: step for step in part.pipeline}
            assert {'LoadImage', 'LoadSegMap'} <= steps.keys()
            assert steps['LoadSegMap'].num_classes == model.decode_head.num_classes
            assert 'skip_unreadable' not in steps['LoadImage']
    counted = [cfg.train_cfg.max_iters, cfg.param_scheduler[-1].end]
    assert counted[0] == counted[1]
    assert not any(step.by_epoch for step in cfg.param_scheduler)
    assert cfg.log_processor.by_epoch is cfg.default_hooks.checkpoint.by_epoch is False


@pytest.fixture(scope='module')
def loaded_alone():
    return ask('deeplab', ALL)


@pytest.mark.parametrize('name', ALL)
def test_it_loads_where_nc_plugins_was_not_imported(name, loaded_alone):
    report = loaded_alone[name]
    check_loads(report)
    assert report['metric'] and report['unknown'] == []


@pytest.mark.parametrize('name', ALL)
def test_the_model_is_made_of_what_the_name_says(name, loaded_alone):
    report, twin = loaded_alone[name], twin_of(name)
    _, layers, plain = FAMILIES[family_of(name)]
    conv, norm = TWINS[twin][2:] if twin != 'gn' else ('conv', 'GN')
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


@pytest.mark.parametrize('name', ALL)
def test_it_trains_one_iteration_and_predicts_one_image(name, loaded_alone):
    report = loaded_alone[name]
    assert math.isfinite(report['loss'])
    assert report['untrained'] == []
    assert report['side'] == (512 if FULL_SIZE and 'r50' in name else 128)
    assert report['predicted'] == [1, 100, 133]
