"""Mistakes in a COCO annotation file give one sentence before the training."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
from mmdet.datasets import CocoDataset, LVISDataset
from mmengine.registry import DefaultScope

from nc_plugins.engine.coco import check_coco
from nc_plugins.engine.preflight import check_data
from nc_plugins.engine.usage import UsageError

LOADS = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]


def annotation(id, image_id, category_id=5, **more):
    polygon = [[2.0, 2.0, 12.0, 2.0, 12.0, 12.0]]
    usual = dict(bbox=[2.0, 2.0, 10.0, 10.0], area=50.0, iscrowd=0, segmentation=polygon)
    return {**dict(id=id, image_id=image_id, category_id=category_id), **usual, **more}


def good():
    images = [dict(id=i, file_name=f'{i}.png', width=32, height=24) for i in (7, 8, 9)]
    categories = [dict(id=5, name='cat'), dict(id=3, name='dog'), dict(id=4, name='owl')]
    # Image 9 is empty. mmdet drops the last two annotations: no class, no area.
    annotations = [
        annotation(11, 7),
        annotation(12, 8, 3),
        annotation(13, 8, 4, segmentation=[]),
        annotation(14, 8, 3, area=0, segmentation=[]),
    ]
    return dict(images=images, categories=categories, annotations=annotations)


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'images').mkdir()
    for i in (7, 8, 9):
        (tmp_path / f'images/{i}.png').touch()
    write(tmp_path, good())
    return tmp_path


def write(root, content):
    text = content if isinstance(content, (str, bytes)) else json.dumps(content)
    (root / 'a.json').write_bytes(text if isinstance(text, bytes) else text.encode())


def dataset(root, **more):
    return dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='a.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('cat', 'dog')),
        pipeline=LOADS,
    ) | dict(more)


def complaint(root, metrics=(), **more):
    with pytest.raises(UsageError) as e:
        check_coco(dataset(root, **more), CocoDataset, 'train_dataloader', metrics)
    assert str(e.value).startswith(f'train_dataloader: {root / "a.json"} ')
    return str(e.value)


def test_a_good_file_passes(root):
    check_coco(dataset(root), CocoDataset, 'train_dataloader', [dict(metric=['bbox', 'segm'])])


@pytest.mark.parametrize(
    ('content', 'wanted'),
    [
        ('', 'is not JSON (Expecting value'),
        ('{"images": [', 'is not JSON (Expecting value'),
        (b'\xff\xd8\xff\xe0', 'is not JSON ('),
        (
            [dict(image_id=7, bbox=[1, 1, 2, 2], score=0.5)],
            'holds a list, but a COCO annotation file is an object with the',
        ),
        ({}, "has no list 'images'"),
        (dict(images={}, categories=[]), 'has {} as images, but wanted is array'),
        (good() | dict(categories=None), 'has null as categories, but wanted is array'),
        (good() | dict(images=[]), 'lists no images'),
        (good() | dict(images=[dict(id=1)]), "has no 'file_name' in images[0]"),
        (
            good() | dict(annotations=[annotation(1, 7), 3]),
            'has 3 as annotations[1], but wanted is',
        ),
        (good() | dict(annotations=[]), 'has no object to train on: of its 0 annotations'),
        (
            good() | dict(annotations=[annotation(1, 7, 4), annotation(2, 7, area=0)]),
            'has no object to train on: of its 2 annotations',
        ),
    ],
)
def test_a_file_of_another_shape(content, wanted, root):
    write(root, content)
    assert wanted in complaint(root)


@pytest.mark.parametrize(
    ('classes', 'wanted'),
    [
        (None, "has none of the 80 classes ('person', 'bicycle', 'car'"),
        (('Cat', 'Dog'), "none of the 2 classes ('Cat', 'Dog') among its 3 categories"),
        (('cat', 'bat', 'owl'), "no category for 1 of the 3 classes ('bat',), which shifts"),
        (('dog', 'cat'), 'in another order than the classes'),
    ],
)
def test_classes_that_are_not_the_files(classes, wanted, root):
    content = good()
    content['categories'] = [dict(id=c['id'], name=c['name']) for c in content['categories']]
    if classes is None:  # the 80 of COCO, which have cats and dogs
        for category in content['categories']:
            category['name'] += '-like'
    write(root, content)
    metainfo = None if classes is None else dict(classes=classes)
    sentence = complaint(root, metainfo=metainfo)
    assert wanted in sentence
    names = [category['name'] for category in content['categories']]
    assert f'metainfo=dict(classes=({", ".join(map(repr, names))}))' in sentence


def test_masks_that_the_pipeline_wants(root):
    content = good()
    for entry in content['annotations'][:2]:
        del entry['segmentation']
    content['annotations'].append(annotation(20, 7))
    write(root, content)
    sentence = complaint(root)
    assert "no 'segmentation' in 2 of 3 annotations (the first has id 11)" in sentence
    assert 'with_mask=False' in sentence

    boxes = [dict(type='LoadAnnotations', with_bbox=True)]
    sentence = complaint(root, metrics=[dict(metric=['bbox', 'segm'])], pipeline=boxes)
    assert "the evaluator measures 'segm'" in sentence and "metric='bbox'" in sentence
    check_coco(dataset(root, pipeline=boxes), CocoDataset, '', [dict(metric='bbox')])


def test_masks_that_polygons_cannot_hold(root):
    content, rle = good(), dict(size=[24, 32], counts=[0, 768])
    polygons = [dict(LOADS[0], poly2mask=False)]
    content['annotations'][0].update(segmentation=rle, iscrowd=1)  # ignored on purpose
    write(root, content)
    check_coco(dataset(root, pipeline=polygons), CocoDataset, '')
    content['annotations'][1]['segmentation'] = rle
    write(root, content)
    sentence = complaint(root, pipeline=polygons)
    assert 'run-length masks in 1 annotations (the first has id 12)' in sentence
    check_coco(dataset(root), CocoDataset, '')


def test_images_that_are_not_there(root):
    content = good()
    content['images'][0]['file_name'] = 'sub/7.png'
    write(root, content)
    sentence = complaint(root)
    assert f'3 images, and 1 of them are not in {root}/images (the first is sub/7.png)' in sentence
    (root / 'images/sub').mkdir()
    (root / 'images/sub/7.png').touch()
    check_coco(dataset(root), CocoDataset, '')
    assert 'and 3 of them' in complaint(root, data_prefix=dict(img='val/'))


def test_a_test_set_may_have_no_objects(root):
    write(root, {key: value for key, value in good().items() if key != 'annotations'})
    check_coco(dataset(root, test_mode=True), CocoDataset, '')
    assert 'has no object to train on' in complaint(root)


def test_what_it_leaves_alone(root, monkeypatch):
    write(root, 'not JSON')
    check_coco(dataset(root), None, '')
    check_coco(dataset(root), LVISDataset, '')  # has its own load_data_list
    check_coco(dataset(root, data_root='s3://bucket/'), CocoDataset, '')
    check_coco(dataset(root, backend_args=dict(backend='petrel')), CocoDataset, '')
    check_coco(dataset(root, ann_file=''), CocoDataset, '')
    monkeypatch.setenv('RANK', '1')
    check_coco(dataset(root), CocoDataset, '')


def test_check_data_asks_it_for_every_leaf_and_its_evaluator(root):
    repeated = dict(type='RepeatDataset', times=2, dataset=dataset(root))
    cfg = dict(
        train_dataloader=dict(dataset=repeated),
        val_dataloader=dict(dataset=dataset(root, pipeline=[], test_mode=True)),
        val_evaluator=dict(type='CocoMetric', metric=['bbox', 'segm']),
    )
    loaders = ('train_dataloader', 'val_dataloader')
    with DefaultScope.overwrite_default_scope('mmdet'):
        check_data(cfg, loaders)
        content = good()
        del content['annotations'][0]['segmentation']
        write(root, content)
        for loader in loaders:
            with pytest.raises(UsageError, match=f'^{loader}: {re.escape(str(root))}.*segm'):
                check_data(cfg, [loader])


def test_the_digits_pass_with_their_config(tmp_path):
    from mmengine.config import Config

    from nc_plugins.datasets.digits import write_digits

    write_digits(tmp_path, scenes_train=4, scenes_val=2)
    config = 'configs/mask_rcnn/mask-rcnn_r18_fpn_gn-all_1xb2_digits.py'
    cfg = Config.fromfile(Path(__file__).parents[2] / config)
    loaders = ('train_dataloader', 'val_dataloader')
    for loader in loaders:
        cfg[loader].dataset.data_root = str(tmp_path / 'coco')
    cfg.val_evaluator.ann_file = None
    with DefaultScope.overwrite_default_scope('mmdet'):
        check_data(cfg, loaders)
        cfg.train_dataloader.dataset.metainfo.classes = ('zero', 'one')
        with pytest.raises(UsageError, match="none of the 2 classes \\('zero', 'one'\\)"):
            check_data(cfg, loaders)
