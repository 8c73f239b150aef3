"""Each Mask R-CNN config differs from its GN config only as its name says, and trains."""

import json
import math
import re

import numpy as np
import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmcv._ext')
from fresh_process import CONFIGS, ask, check_registration
from fresh_process import load as load_config
from mmengine.config import Config
from mmengine.hub import get_config

FOLDER = CONFIGS / 'mask_rcnn'

SIX, TWO = (f'mask-rcnn_r50-scratch_fpn_{{}}-all_{n}x_coco' for n in (6, 2))
DIGITS, TEN = (f'mask-rcnn_r18_fpn_{{}}-all_1xb2_{data}' for data in ('digits', 'coco-ten'))
RPN = 'mask-rcnn_r50-scratch_fpn_nc-all-rpn_6x_coco'
# variant -> (conv_cfg, norm_cfg, kind of convolution, kind of norm)
VARIANTS = {
    'nc': (dict(type='NC'), dict(type='NC'), 'NC', 'NCAffine'),
    'nc-ws': (dict(type='NCWS'), dict(type='NC'), 'NCWS', 'NCAffine'),
    'bn': (None, dict(type='BN'), 'conv', 'BN'),
}
FAMILIES = {SIX: list(VARIANTS), TWO: list(VARIANTS), DIGITS: list(VARIANTS), TEN: ['nc']}
PAIRS = [(family, variant) for family, variants in FAMILIES.items() for variant in variants]
ALL = sorted({*(f.format('gn') for f in FAMILIES), *(f.format(t) for f, t in PAIRS), RPN})
# The 2x configs have the models of the 6x configs.
FULL = [name for name in ALL if 'r50' in name and '_2x_' not in name]
# The fast tests train one large model and every small one.
STEPS = [name for name in ALL if 'r18' in name or name == RPN]
# What has no norm slot upstream, in every model.
PLAIN = ['rpn_head.rpn_conv', 'rpn_head.rpn_cls', 'rpn_head.rpn_reg']
PLAIN += ['roi_head.mask_head.upsample', 'roi_head.mask_head.conv_logits']
LOSSES = {'loss', 'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask'}


def load(name):
    return load_config(f'mask_rcnn/{name}')


def without_slots(cfg):
    others = cfg.to_dict()
    others.pop('slots', None)  # a variable of the config files
    model = others['model']
    roi = model['roi_head']
    parts = (model['backbone'], model['neck'], roi['bbox_head'], roi['mask_head'])
    return others, [(part.pop('conv_cfg', None), part.pop('norm_cfg', None)) for part in parts]


def test_the_lists_above_name_every_file_on_disk():
    assert sorted(path.stem for path in FOLDER.iterdir() if path.suffix == '.py') == ALL
    assert len(ALL) == 3 * 4 + 2 + 1


@pytest.mark.parametrize(('family', 'variant'), PAIRS)
def test_a_variant_differs_from_its_gn_config_only_in_its_slots(family, variant):
    ours, slots = without_slots(load(family.format(variant)))
    theirs, gn_slots = without_slots(load(family.format('gn')))
    assert ours == theirs
    assert slots == [VARIANTS[variant][:2]] * 4
    assert [(conv, norm['type']) for conv, norm in gn_slots] == [(None, 'GN')] * 4


@pytest.mark.parametrize('family', FAMILIES)
def test_the_gn_config_trains_from_scratch_and_trains_batchnorm_statistics(family):
    cfg = load(family.format('gn'))
    backbone = cfg.model.backbone
    assert (backbone.frozen_stages, backbone.init_cfg) == (-1, None)
    assert (backbone.norm_eval, backbone.zero_init_residual) == (False, False)
    assert cfg.load_from is None
    assert backbone.get('base_channels', 64) / backbone.norm_cfg.num_groups == 2
    assert cfg.optim_wrapper.paramwise_cfg == dict(norm_decay_mult=0.0)


def without_scope(value):
    """Remove the key ``_scope_`` that mmengine adds to the bases of other packages."""
    if isinstance(value, dict):
        return {key: without_scope(v) for key, v in value.items() if key != '_scope_'}
    return [without_scope(v) for v in value] if isinstance(value, (list, tuple)) else value


def test_the_6x_config_is_mmdets_recipe():
    ours = without_scope(load(SIX.format('gn')).to_dict())
    theirs = get_config('mmdet::scratch/mask-rcnn_r50-scratch_fpn_gn-all_6x_coco.py')
    theirs = without_scope(theirs.to_dict())
    theirs['model']['backbone']['norm_eval'] = False
    assert ours['model'] == theirs['model']
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr', 'val_evaluator'):
        assert ours[key] == theirs[key], key
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert ours[key] == theirs[key], key


def test_the_2x_config_differs_only_in_its_schedule():
    two, six = load(TWO.format('gn')).to_dict(), load(SIX.format('gn')).to_dict()
    changed = {key for key in {*two, *six} if two.get(key) != six.get(key)}
    assert changed == {'max_epochs', 'train_cfg', 'param_scheduler'}
    steps = two['param_scheduler'][1]
    assert two['train_cfg']['max_epochs'] == steps['end'] == 24
    assert steps['milestones'] == [16, 22]


def test_the_rpn_config_differs_only_in_the_rpn():
    ours, theirs = load(RPN).to_dict(), load(SIX.format('nc')).to_dict()
    head = ours['model']['rpn_head']
    assert (head['type'], head.pop('conv_cfg')) == ('RPNHeadWithSlots', dict(type='NC'))
    assert ours.pop('custom_imports')['imports'][:-1] == theirs.pop('custom_imports')['imports']
    head['type'] = 'RPNHead'
    assert ours == theirs


@pytest.mark.parametrize('family', FAMILIES)
def test_the_header_of_the_gn_config_lists_the_plain_convolutions(family):
    if family in (TWO, TEN):
        family = SIX  # their headers refer to it
    head = re.match(r'(#.*\n)+', (FOLDER / f'{family.format("gn")}.py').read_text()).group()
    for name in PLAIN:
        assert name.rpartition('.')[2] in head


@pytest.fixture(scope='module')
def reports():
    return ask('mask_rcnn', ALL, steps=STEPS)


@pytest.fixture(scope='module')
def full_size_reports():
    return ask('mask_rcnn', FULL, steps=FULL, full_size=True)


@pytest.mark.parametrize('name', ALL)
def test_it_loads_in_a_process_without_nc_plugins(name, reports):
    check_registration(reports[name])
    assert reports[name]['unknown'] == []


@pytest.mark.parametrize('name', ALL)
def test_the_model_has_the_layers_in_its_name(name, reports):
    variant = re.search(r'_fpn_(.+)-all', name).group(1)
    _, _, conv, norm = VARIANTS.get(variant, (None, None, 'conv', 'GN'))
    # the backbone, two for each output of the FPN, four in each head
    layers = {'r50': 53 + 8 + 8, 'ten': 20 + 8 + 8, 'digits': 15 + 6 + 8}
    count = layers['r50' if 'r50' in name else name.rpartition('-' if 'ten' in name else '_')[2]]
    plain = PLAIN[1:] if name == RPN else PLAIN
    wanted = {norm: count, 'conv': len(plain)}
    wanted[conv] = wanted.get(conv, 0) + count + (name == RPN)
    report = reports[name]
    assert report['census'] == wanted
    assert report['plain'] == plain


@pytest.mark.parametrize('name', STEPS)
def test_it_takes_a_training_iteration_and_evaluates_an_image(name, reports):
    size = [128, 213] if 'r50' in name else [128, 128] if 'digits' in name else [320, 320]
    max_per_img = 20 if 'digits' in name else 10 if 'r50' in name else 100
    check_step(reports[name], size, max_per_img)


@pytest.mark.slow
@pytest.mark.parametrize('name', FULL)
def test_it_does_so_at_full_size(name, full_size_reports):
    check_step(full_size_reports[name], [800, 1333], 100)


def check_step(report, size, max_per_img):
    assert report['losses'].keys() == LOSSES
    assert all(math.isfinite(loss) and loss > 0 for loss in report['losses'].values())
    assert report['unchanged'] == []
    assert report['finite']
    assert report['size'] == size
    assert report['masks'] == [max_per_img, *size]


def test_training_and_evaluation_use_the_same_ten_images(tmp_path):
    import mmdet.datasets
    import mmdet.evaluation  # noqa: F401
    from mmdet.registry import DATASETS, METRICS
    from mmengine.registry import DefaultScope

    names = ('person', 'bicycle')
    square = [[2.0, 2.0, 22.0, 2.0, 22.0, 22.0, 2.0, 22.0]]
    content = {
        'images': [
            dict(id=90 - i, file_name=f'{i}.png', width=64, height=48) for i in range(12)
        ],
        'annotations': [
            dict(id=i + 1, image_id=90 - i, category_id=1, iscrowd=0, area=400.0,
                 bbox=[2.0, 2.0, 20.0, 20.0], segmentation=square)
            for i in range(12) if i != 3  # an image without objects
        ],
        'categories': [dict(id=i + 1, name=name) for i, name in enumerate(names)],
    }  # fmt: skip
    (tmp_path / 'train2017').mkdir()
    (tmp_path / 'annotations').mkdir()
    file = tmp_path / 'annotations/instances_train2017.json'
    file.write_text(json.dumps(content))
    from PIL import Image

    for i in range(12):
        Image.fromarray(np.full((48, 64, 3), i, np.uint8)).save(tmp_path / f'train2017/{i}.png')

    cfg = Config.fromfile(FOLDER / f'{TEN.format("nc")}.py')
    options = dict(data_root=str(tmp_path), metainfo=dict(classes=names))
    with DefaultScope.overwrite_default_scope('mmdet'):
        train, val = (
            DATASETS.build({**dataset, **options})
            for dataset in (cfg.train_dataloader.dataset.dataset, cfg.val_dataloader.dataset)
        )
        metric = METRICS.build(cfg.val_evaluator)
    ids = [90 - i for i in range(10)]
    assert [train[i]['data_samples'].img_id for i in range(len(train))] == ids
    samples = [val[i]['data_samples'] for i in range(len(val))]
    assert [sample.img_id for sample in samples] == ids

    # The ground truth as prediction scores 1 only if the evaluation counts no other image.
    metric.dataset_meta = val.metainfo
    for sample in samples:
        objects = sample.to_dict()
        boxes = np.array([o['bbox'] for o in objects['instances']], np.float32).reshape(-1, 4)
        objects['pred_instances'] = perfect(boxes, sample.ori_shape)
        metric.process({}, [objects])
    scores = metric.evaluate(size=len(samples))
    assert scores['coco/bbox_mAP_50'] == scores['coco/segm_mAP_50'] == 1.0


def perfect(boxes, shape):
    import torch

    masks = torch.zeros(len(boxes), *shape, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
        mask[top:bottom, left:right] = True
    count = len(boxes)
    return dict(
        bboxes=torch.from_numpy(boxes),
        scores=torch.ones(count),
        labels=torch.zeros(count, dtype=torch.long),
        masks=masks,
    )
