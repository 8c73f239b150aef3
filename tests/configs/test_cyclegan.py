"""Each CycleGAN config differs from its InstanceNorm config only as its name says, and trains."""

import math

import numpy as np
import pytest

pytest.importorskip('mmcv')
from fresh_process import CONFIGS, ask, check_registration
from fresh_process import load as load_config
from PIL import Image

FAMILIES = {
    'cyclegan_resnet9_{}_1xb1-200e_horse2zebra': ['in', 'nc', 'pn', 'gn'],
    'cyclegan_resnet9_{}_1xb1-200e_summer2winter': ['in', 'nc', 'pn', 'gn'],
    'cyclegan_resnet4-w24_{}_1xb1-8e_day2dusk': ['in', 'nc'],
    'cyclegan_resnet2-w16_{}_1xb8-10e_digits': ['in', 'nc', 'pn', 'gn'],
}
NAMES = [family.format(kind) for family, kinds in FAMILIES.items() for kind in kinds]
PAIRS = [(family, kind) for family, kinds in FAMILIES.items() for kind in kinds if kind != 'in']
IN_FILES = [family.format('in') for family in FAMILIES]
FULL = [name for name in NAMES if 'horse2zebra' in name]
STEPS = [name for name in FULL if name.split('_')[2] in ('in', 'nc')]  # of the fast tests
BLOCKS = {'resnet9': 9, 'resnet4-w24': 4, 'resnet2-w16': 2}
LAYERS = {'resnet9': 3, 'resnet4-w24': 2, 'resnet2-w16': 2}  # of stride 2 in a discriminator

IN = dict(type='IN', affine=False)
SLOTS = {
    'nc': dict(conv_cfg=dict(type='NC'), norm_cfg=dict(type='NC')),
    'pn': dict(norm_cfg=dict(type='PN')),
    'gn': dict(norm_cfg=dict(type='GN', num_groups=32)),
}
KINDS = {'in': ('conv', 'IN'), 'nc': ('NC', 'NCAffine'), 'pn': ('conv', 'PN'), 'gn': ('conv', 'GN')}


def load(name):
    return load_config(f'cyclegan/{name}').to_dict()


def parts(name):
    """The network and the norm in the name of a config: ('resnet9', 'nc')."""
    return name.split('_')[1], name.split('_')[2]


def take_slots(cfg):
    """Remove convolution, norm, upsampling and initialisation from ``cfg`` and return them."""
    cfg.pop('slots', None)  # the variable of _base_/models/cyclegan_nc.py
    model = cfg['model']
    taken = {'init_cfg': model.pop('init_cfg')}
    for part in ('generator', 'discriminator'):
        keys = ('conv_cfg', 'norm_cfg', 'upsample_cfg')
        taken[part] = {k: model[part].pop(k) for k in keys if k in model[part]}
    return taken


def test_the_list_above_names_every_file_on_disk():
    assert {p.stem for p in (CONFIGS / 'cyclegan').rglob('*.py')} == set(NAMES)
    assert (CONFIGS / '_base_' / 'translation_runtime.py').is_file()


@pytest.mark.parametrize(('family', 'kind'), PAIRS)
def test_a_variant_differs_from_its_in_config_only_in_its_slots(family, kind):
    ours, theirs = load(family.format(kind)), load(family.format('in'))
    slots, base = take_slots(ours), take_slots(theirs)
    assert ours == theirs
    expected = dict(SLOTS[kind])
    if kind == 'gn' and 'w16' in family:
        # 2 channels a group, as at full width
        expected = dict(norm_cfg=dict(type='GN', num_groups=8))
    assert base['discriminator'] == dict(norm_cfg=IN)
    assert slots['discriminator'] == expected
    deconv = dict(type='NCDeconv' if kind == 'nc' else 'deconv')
    assert base['generator'] == dict(norm_cfg=IN, upsample_cfg=dict(type='deconv'))
    assert slots['generator'] == dict(expected, upsample_cfg=deconv)
    layers = ['Conv2d', 'ConvTranspose2d']
    assert base['init_cfg'] == dict(type='Normal', layer=layers, std=0.02)
    if kind == 'nc':  # the scale of a filter is the scale of NC's output
        nc = dict(
            type='Kaiming',
            layer=['NCConv2d', 'NCConvTranspose2d'],
            mode='fan_in',
            nonlinearity='linear',
            distribution='normal',
        )
        assert slots['init_cfg'] == [base['init_cfg'], nc]
    else:
        assert slots['init_cfg'] == base['init_cfg']


@pytest.mark.parametrize('name', [n for n in IN_FILES if 'resnet9' in n])
def test_the_recipe_is_the_papers(name):
    cfg = load(name)
    model, data = cfg['model'], cfg['train_dataloader']
    assert (model['cycle_weight'], model['identity_weight'], model['pool_size']) == (10, 5, 50)
    assert model['generator']['num_blocks'] == 9
    assert model['generator']['base_channels'] == model['discriminator']['base_channels'] == 64
    assert model['discriminator']['num_layers'] == 3
    assert data['batch_size'] == 1
    sizes = {k: data['dataset'][k] for k in ('load_size', 'crop_size', 'flip')}
    assert sizes == dict(load_size=286, crop_size=256, flip=True)
    for part in ('generator', 'discriminator'):
        optimizer = cfg['optim_wrapper'][part]['optimizer']
        assert optimizer == dict(type='Adam', lr=2e-4, betas=(0.5, 0.999))
    assert cfg['train_cfg']['max_epochs'] == 200
    assert cfg['val_dataloader']['dataset']['test_mode'] is True


@pytest.mark.parametrize('name', IN_FILES)
def test_the_learning_rate_is_constant_in_the_first_half_and_falls_in_the_second(name):
    cfg = load(name)
    epochs, schedule = cfg['train_cfg']['max_epochs'], cfg['param_scheduler']
    assert schedule == dict(
        type='LinearLR',
        begin=epochs // 2 - 1,
        end=epochs,
        start_factor=1.0,
        end_factor=pytest.approx(1 / (epochs // 2 + 1)),
        by_epoch=True,
    )


@pytest.mark.parametrize('name', NAMES)
def test_it_tests_on_the_validation_set_and_reads_one_folder(name):
    cfg = load(name)
    assert cfg['test_dataloader'] == cfg['val_dataloader']
    assert cfg['test_evaluator'] == cfg['val_evaluator']
    roots = {cfg[f'{split}_dataloader']['dataset']['data_root'] for split in ('train', 'val')}
    assert roots == {cfg['data_root']}
    assert cfg['val_evaluator'][0] == dict(type='CycleL1')


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for name in ('trainA', 'trainB', 'testA', 'testB'):
        (folder / name).mkdir()
        pixels = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / '0.png')
    return str(folder)


@pytest.fixture(scope='module')
def reports(images):
    return ask('cyclegan', NAMES, images, steps=STEPS)


@pytest.fixture(scope='module')
def full_size_reports(images):
    return ask('cyclegan', FULL, images, steps=FULL, full_size=True)


@pytest.mark.parametrize('name', NAMES)
def test_it_loads_in_a_process_without_nc_plugins(name, reports):
    check_registration(reports[name])


@pytest.mark.parametrize('name', NAMES)
def test_the_model_has_the_layers_in_its_name(name, reports):
    size, kind = parts(name)
    conv, norm = KINDS[kind]
    # There are two of each network. A generator has the stem, 2 convolutions down, 2 a block, 2 up,
    # and a plain one to RGB. A discriminator has one a layer, and the first and the last are plain.
    normed = 2 * (5 + 2 * BLOCKS[size]) + 2 * LAYERS[size]
    expected = {conv: normed, norm: normed}
    expected['conv'] = expected.get('conv', 0) + 2 * 1 + 2 * 2
    assert reports[name]['census'] == expected


@pytest.mark.parametrize('name', [n for n in NAMES if parts(n)[1] == 'nc'])
def test_these_convolutions_stay_plain(name, reports):
    size, _ = parts(name)
    assert reports[name]['plain'] == [
        'discriminator_A.layers.0.conv',
        f'discriminator_A.layers.{LAYERS[size] + 1}.conv',
        f'generator_AB.layers.{BLOCKS[size] + 5}.conv',
    ]
    head = (CONFIGS / 'cyclegan' / f'{name}.py').read_text()
    assert '# ../_base_/models/cyclegan_nc.py lists the convolutions that stay plain.' in head
    listed = (CONFIGS / '_base_/models/cyclegan_nc.py').read_text()
    assert 'These convolutions stay plain: the last one of each' in listed


@pytest.mark.parametrize('name', [n for n in NAMES if parts(n) == ('resnet9', 'in')])
def test_the_number_of_parameters_is_that_of_the_authors_release(name, reports):
    assert reports[name]['parameters'] == {
        'generator_AB': 11_378_179,
        'generator_BA': 11_378_179,
        'discriminator_A': 2_764_737,
        'discriminator_B': 2_764_737,
    }


@pytest.mark.parametrize('name', STEPS)
def test_it_takes_a_training_step_and_evaluates_an_image(name, reports):
    check_run(reports[name]['run'])


@pytest.mark.slow
@pytest.mark.parametrize('name', FULL)
def test_it_does_so_at_full_size(name, full_size_reports):
    check_run(full_size_reports[name]['run'])


def check_run(run):
    assert run['iterations'] == 1
    kinds = ('cycle', 'gan', 'identity', 'discriminator')
    assert set(run['losses']) == {'loss', *(f'loss_{kind}_{d}' for kind in kinds for d in 'AB')}
    assert all(math.isfinite(loss) and loss > 0 for loss in run['losses'].values())
    assert set(run['metrics']) == {'cycle/l1', 'cycle/l1_A', 'cycle/l1_B'}
    assert all(math.isfinite(value) and value > 0 for value in run['metrics'].values())
    assert run['samples'] == ['epoch_001.png']
    assert run['finite']
