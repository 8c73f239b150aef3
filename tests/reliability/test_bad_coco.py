"""COCO files with a mistake are named before training, and unusual but legal files are read."""

import json

import pytest

pytest.importorskip('mmdet')
from PIL import Image

from .reading import picture, read

WIDTH, HEIGHT = 40, 36
PIPELINE = [
    dict(type='LoadImageFromFile'),  # of mmcv, as in every upstream config
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs'),
]


def good():
    """Four images with two objects each; classes 3 'cat' and 7 'dog'."""
    images = [dict(id=i, file_name=f'{i}.png', width=WIDTH, height=HEIGHT) for i in range(1, 5)]
    annotations = []
    for number in range(8):
        x, y = 2 + number, 3
        polygon = [x, y, x + 12, y, x + 12, y + 10, x, y + 10]
        annotations.append(
            dict(
                id=number + 1,
                image_id=number // 2 + 1,
                category_id=(3, 7)[number % 2],
                bbox=[x, y, 12, 10],
                area=120,
                iscrowd=0,
                segmentation=[polygon],
            )
        )
    categories = [dict(id=3, name='cat'), dict(id=7, name='dog')]
    return dict(images=images, annotations=annotations, categories=categories)


def dataset(root, **more):
    return dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='a.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=('cat', 'dog')),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=PIPELINE,
    ) | dict(more)


def write(root, content):
    for number in range(1, 5):
        picture(root / f'{number}.png', (WIDTH, HEIGHT), seed=number)
    (root / 'a.json').write_text(json.dumps(content))


def each(name, /, **values):
    """Change every entry of a list. A function gets the entry."""

    def change(content):
        for entry in content[name]:
            for key, value in values.items():
                entry[key] = value(entry) if callable(value) else value

    return change


def one(name, index, /, **values):
    return lambda content: content[name][index].update(values)


def without(name, index, key):
    return lambda content: content[name][index].pop(key)


def runs(*counts, size=(HEIGHT, WIDTH)):
    return dict(size=list(size), counts=list(counts))


ALL = WIDTH * HEIGHT
A, B = 'annotations[2]', 'annotations'
# name -> (change of the content, what the message must contain besides the file)
BAD = {
    'no images': (lambda c: c.pop('images'), "no list 'images'"),
    'no categories': (lambda c: c.pop('categories'), "no list 'categories'"),
    'images is an object': (lambda c: c.update(images={}), 'has {} as images'),
    'annotations is null': (lambda c: c.update(annotations=None), 'null as annotations'),
    'empty images': (lambda c: c.update(images=[]), 'lists no images'),
    'entry is a number': (lambda c: c['images'].insert(1, 5), 'has 5 as images[1]'),
    'no file_name': (without('images', 2, 'file_name'), "no 'file_name' in images[2]"),
    'no width': (without('images', 0, 'width'), "no 'width' in images[0]"),
    'no bbox': (without(B, 2, 'bbox'), f"no 'bbox' in {A}"),
    'no area': (without(B, 2, 'area'), f"no 'area' in {A}"),
    'no image_id': (without(B, 2, 'image_id'), f"no 'image_id' in {A}"),
    'no name of a category': (without('categories', 1, 'name'), "no 'name' in categories[1]"),
    'area string': (each(B, area='120'), 'has "120" as annotations[0].area, but wanted is float'),
    'area null': (one(B, 2, area=None), f'has null as {A}.area'),
    'area nan': (one(B, 2, area=float('nan')), f'has nan as {A}.area'),
    'box of strings': (one(B, 2, bbox=['1', '2', '3', '4']), f'has "1" as {A}.bbox[0]'),
    'box of three': (one(B, 2, bbox=[1, 2, 3]), f'has [1, 2, 3] as {A}.bbox'),
    'box of five': (one(B, 2, bbox=[1, 2, 3, 4, 5]), f'{A}.bbox, but wanted is array of length 4'),
    'box null': (one(B, 2, bbox=None), f'has null as {A}.bbox'),
    'box nan': (one(B, 2, bbox=[float('nan'), 2, 3, 4]), f'{A}.bbox, but wanted is left'),
    'box inf': (one(B, 2, bbox=[1, 2, float('inf'), 4]), f'{A}.bbox, but wanted is left'),
    'box negative': (one(B, 2, bbox=[20, 20, -10, -10]), f'{A}.bbox, but wanted is left'),
    'box nested': (one(B, 2, bbox=[[1, 2], [3, 4]]), f'has [[1, 2], [3, 4]] as {A}.bbox'),
    'image_id string': (
        each(B, image_id=lambda a: str(a['image_id'])),
        'has "1" as annotations[0]',
    ),
    'image_id of nothing': (one(B, 2, image_id=99), f'has 99 as {A}.image_id'),
    'category_id string': (one(B, 2, category_id='3'), f'has "3" as {A}.category_id'),
    'category_id of nothing': (one(B, 2, category_id=4), f'has 4 as {A}.category_id'),
    'category_id float': (one(B, 2, category_id=3.5), f'has 3.5 as {A}.category_id'),
    'id string': (one(B, 2, id='x'), f'has "x" as {A}.id'),
    'image id string': (one('images', 3, id='4'), 'has "4" as images[3].id'),
    'height string': (each('images', height='36'), 'has "36" as images[0].height'),
    'height zero': (one('images', 3, height=0), 'has 0 as images[3].height'),
    'file_name number': (one('images', 0, file_name=17), 'has 17 as images[0].file_name'),
    'iscrowd string': (one(B, 2, iscrowd='0'), f'has "0" as {A}.iscrowd'),
    'duplicate annotation ids': (
        each(B, id=lambda a: a['id'] % 7),
        'the id 1 twice in annotations',
    ),
    'all annotation ids 0': (each(B, id=0), 'the id 0 twice in annotations, at [0] and [1]'),
    'duplicate image ids': (one('images', 3, id=1), 'the id 1 twice in images, at [0] and [3]'),
    'duplicate category ids': (one('categories', 1, id=3), 'the id 3 twice in categories'),
    'duplicate names': (one('categories', 1, name='cat'), "the name 'cat' twice in categories"),
    'flat polygon': (one(B, 2, segmentation=[1, 2, 3, 4, 5, 6]), f'{A}.segmentation[0]'),
    'two corners': (one(B, 2, segmentation=[[4, 3, 16, 13]]), f'4 numbers in {A}.segmentation[0]'),
    'odd polygon': (one(B, 2, segmentation=[[1, 1, 9, 1, 9, 9, 5]]), f'7 numbers in {A}.segm'),
    'empty polygon': (one(B, 2, segmentation=[[]]), f'0 numbers in {A}.segmentation[0]'),
    'second polygon short': (
        one(B, 2, segmentation=[[1, 1, 9, 1, 9, 9], [1, 1]]),
        f'2 numbers in {A}.segmentation[1]',
    ),
    'pairs nested': (one(B, 2, segmentation=[[[1, 1], [9, 1], [9, 9]]]), f'{A}.segmentation[0][0]'),
    'polygon of strings': (one(B, 2, segmentation=[['1'] * 6]), f'has "1" as {A}.segmentation'),
    'polygon nan': (
        one(B, 2, segmentation=[[1, 1, 9, 1, 9, float('nan')]]),
        f'not finite in {A}.segmentation[0]',
    ),
    'no masks': (each(B, segmentation=[]), "no 'segmentation' in 8 of 8"),
    'mask text': (one(B, 2, segmentation='x'), f'has "x" as {A}.segmentation'),
    'RLE of another size': (
        one(B, 2, segmentation=runs(100, 50, 64 * 64 - 150, size=(64, 64))),
        f'has [64, 64] as {A}.segmentation.size',
    ),
    'RLE turned': (
        one(B, 2, segmentation=runs(ALL - 9, 9, size=(WIDTH, HEIGHT))),
        f'has [40, 36] as {A}.segmentation.size',
    ),
    'RLE too short': (one(B, 2, segmentation=runs(9, 9)), f'{A}.segmentation.counts that cover 18'),
    'RLE negative': (one(B, 2, segmentation=runs(-1, ALL + 1)), f'{A}.segmentation.counts'),
    'RLE compressed, cut': (one(B, 2, segmentation=dict(size=[36, 40], counts='P')), f'{A}.segm'),
    'RLE without size': (one(B, 2, segmentation=dict(counts=[1])), f"no 'size' in {A}.segm"),
    'all crowd': (each(B, iscrowd=1), 'has no object to train on'),
    'all ignored': (each(B, ignore=1), 'has no object to train on'),
    'all of area 0': (each(B, area=0), 'has no object to train on'),
    'all boxes empty': (each(B, bbox=[3, 3, 0, 0]), 'has no object to train on'),
    'all boxes outside': (each(B, bbox=[900, 900, 5, 5]), 'has no object to train on'),
    'all images small': (
        each('images', width=31, height=31),
        'are smaller than filter_cfg min_size',
    ),
    'no annotations': (lambda c: c.update(annotations=[]), 'has no object to train on'),
    'missing image': (one('images', 1, file_name='gone.png'), 'gone.png'),
    'image is labelled turned': (each('images', width=HEIGHT, height=WIDTH), '40x36 pixels, but'),
    'image was shrunk': (each('images', width=80, height=72), 'but its annotation file says 80x72'),
    'a class is unknown': (one('categories', 1, name='hund'), 'no category for 1 of the 2'),
}


@pytest.mark.parametrize('name', BAD)
def test_a_bad_file_is_named(name, tmp_path):
    change, words = BAD[name]
    content = good()
    change(content)
    write(tmp_path, content)
    sentence = read('mmdet', dataset(tmp_path))
    assert isinstance(sentence, str), 'no error'
    assert words in sentence
    assert str(tmp_path) in sentence and '\n' not in sentence


@pytest.mark.parametrize(
    'content', [b'', b'{"images": [', '\ufeff{}'.encode(), '{}'.encode('utf-16'), b'\xff\xd8\xff']
)
def test_a_file_that_is_not_json_is_named(content, tmp_path):
    (tmp_path / 'a.json').write_bytes(content)
    assert f'{tmp_path / "a.json"} is not JSON' in read('mmdet', dataset(tmp_path))


def test_a_file_of_detections_is_named(tmp_path):
    (tmp_path / 'a.json').write_text(json.dumps(good()['annotations']))
    assert f'{tmp_path / "a.json"} holds a list' in read('mmdet', dataset(tmp_path))


def rotate(root):
    for number in range(1, 5):
        exif = Image.Exif()
        exif[0x112] = 6
        picture(root / f'{number}.png', (WIDTH, HEIGHT), exif=exif)


def test_an_image_that_exif_turns_is_named(tmp_path):
    write(tmp_path, good())
    rotate(tmp_path)
    sentence = read('mmdet', dataset(tmp_path))
    assert (
        '1.png has 36x40 pixels, but its annotation file says 40x36 (perhaps the EXIF' in sentence
    )


@pytest.mark.parametrize('number', [1, 3, 20])
def test_too_few_or_too_many_classes_in_the_head(number, tmp_path):
    write(tmp_path, good())
    sentence = read('mmdet', dataset(tmp_path), num_classes=number)
    assert f'model.decode_head.num_classes is {number}, but its data has 2' in sentence
    repeated = dict(type='RepeatDataset', times=2, dataset=dataset(tmp_path))
    assert read('mmdet', repeated, num_classes=number) == sentence


def evaluated(root, **metric):
    metric = dict(type='CocoMetric', ann_file=str(root / 'a.json'), **metric)
    test = dataset(root, test_mode=True, filter_cfg=None, pipeline=PIPELINE[::2])
    return read('mmdet', test, evaluator=metric)


def test_the_id_0_is_legal_unless_pycocotools_evaluates_it(tmp_path):
    content = good()
    content['annotations'][2]['id'] = 0
    write(tmp_path, content)
    assert len(read('mmdet', dataset(tmp_path))) == 4
    sentence = evaluated(tmp_path, metric='bbox')
    assert f'{tmp_path / "a.json"} has 0 as annotations[2].id' in sentence


def test_the_evaluator_has_another_file(tmp_path):
    write(tmp_path, good())
    assert len(evaluated(tmp_path, metric='bbox')) == 4
    other = good()
    other['images'][3]['file_name'] = 'another.png'
    (tmp_path / 'b.json').write_text(json.dumps(other))
    metric = dict(type='CocoMetric', ann_file=str(tmp_path / 'b.json'), metric='bbox')
    sentence = read('mmdet', dataset(tmp_path, test_mode=True), evaluator=metric)
    assert "has '4.png' with the id 4 as images[3]" in sentence and 'b.json' in sentence


def test_the_file_of_the_evaluator_is_missing(tmp_path):
    write(tmp_path, good())
    metric = dict(type='CocoMetric', ann_file=str(tmp_path / 'gone.json'), metric='bbox')
    sentence = read('mmdet', dataset(tmp_path, test_mode=True), evaluator=metric)
    assert sentence == f'val_dataloader: {tmp_path}/gone.json does not exist'


def test_objects_that_are_not_used_are_said(tmp_path, capfd):
    content = good()
    content['annotations'][3]['area'] = 0
    content['annotations'][5]['bbox'] = [30, 3, 12, 10]
    write(tmp_path, content)
    assert objects(read('mmdet', dataset(tmp_path))) == [2, 1, 2, 2]
    said = ''.join(capfd.readouterr())
    assert (
        f'{tmp_path}/a.json: 1 of 8 annotations (the first is annotations[3]) are not used' in said
    )
    assert 'a.json: 1 of 8 boxes (the first is annotations[5]) reach over the edge' in said


def objects(samples):
    return [len(sample['data_samples'].gt_instances) for sample in samples]


def crowd(content):
    content['annotations'][1].update(iscrowd=1, segmentation=runs(100, 50, ALL - 150))


LEGAL = {
    'as it is': (lambda c: None, [2, 2, 2, 2]),
    'an image without objects': (lambda c: c.update(annotations=c['annotations'][:6]), [2, 2, 2]),
    'gaps in the ids': (
        lambda c: (
            each('images', id=lambda i: 100 * i['id'])(c),
            each('annotations', image_id=lambda a: 100 * a['image_id'], id=lambda a: 9 * a['id'])(
                c
            ),
        ),
        [2, 2, 2, 2],
    ),
    'category ids from 0': (
        lambda c: (
            each('categories', id=lambda k: {3: 0, 7: 1}[k['id']])(c),
            each('annotations', category_id=lambda a: {3: 0, 7: 1}[a['category_id']])(c),
        ),
        [2, 2, 2, 2],
    ),
    'more keys': (each('annotations', score=None, attributes={'occluded': 'no'}), [2, 2, 2, 2]),
    'a crowd region': (crowd, [1, 2, 2, 2]),
    'iscrowd as a bool': (each('annotations', iscrowd=False), [2, 2, 2, 2]),
    'a box without area': (one('annotations', 0, area=0), [1, 2, 2, 2]),
    'a box outside': (one('annotations', 0, bbox=[90, 3, 12, 10]), [1, 2, 2, 2]),
}


@pytest.mark.parametrize('name', LEGAL)
def test_a_legal_file_is_read(name, tmp_path):
    change, counts = LEGAL[name]
    content = good()
    change(content)
    write(tmp_path, content)
    samples = read('mmdet', dataset(tmp_path))
    assert not isinstance(samples, str), samples
    assert objects(samples) == counts


def test_compressed_run_lengths_are_legal_and_measured(tmp_path):
    import numpy as np
    from pycocotools import mask

    content = good()
    pixels = np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.7
    encoded = mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    text = encoded['counts'].decode()
    content['annotations'][0]['segmentation'] = dict(size=[HEIGHT, WIDTH], counts=text)
    write(tmp_path, content)
    samples = read('mmdet', dataset(tmp_path))
    assert not isinstance(samples, str), samples
    masks = samples[0]['data_samples'].gt_instances.masks.masks
    np.testing.assert_array_equal(masks[0], pixels)
    content['annotations'][0]['segmentation']['counts'] = text[:-2]
    write(tmp_path, content)
    assert 'annotations[0].segmentation.counts that cover' in read('mmdet', dataset(tmp_path))


def test_the_masks_of_a_training_on_boxes_do_not_matter(tmp_path):
    content = good()
    content['annotations'][0]['segmentation'] = [1, 2, 3]
    write(tmp_path, content)
    boxes = [PIPELINE[0], dict(type='LoadAnnotations', with_bbox=True), PIPELINE[2]]
    assert objects(read('mmdet', dataset(tmp_path, pipeline=boxes))) == [2, 2, 2, 2]
