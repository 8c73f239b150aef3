"""The embedded digits: the content of each layout, and the separation of the splits."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from nc_plugins.datasets import digits as module
from nc_plugins.datasets.digits import encode_rle, split_digits, voc_palette, write_digits

SCENES = {'scenes_train': 14, 'scenes_val': 8}


@pytest.fixture(scope='module')
def source():
    return load_digits()


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    dest = tmp_path_factory.mktemp('digits') / 'digits'
    assert write_digits(dest, **SCENES) is True
    return dest


@pytest.fixture(scope='module', params=['train', 'val'])
def coco(request, root):
    path = root / 'coco' / 'annotations' / f'instances_{request.param}.json'
    return request.param, json.loads(path.read_text())


def hashes(folder):
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }


def pixels(path, mode='RGB'):
    with Image.open(path) as image:
        assert image.mode == mode, path
        return np.asarray(image)


def decode_rle(rle):
    """Decode run lengths by COCO's definition."""
    height, width = rle['size']
    flat, value = [], 0
    for count in rle['counts']:
        flat += [value] * count
        value = 1 - value
    assert len(flat) == height * width
    return np.array(flat, bool).reshape(width, height).T


def nearest_labels(train, train_labels, queries):
    """Labels of the nearest training images."""
    train, queries = (np.reshape(x, (len(x), -1)).astype(np.float64) for x in (train, queries))
    squares = (train**2).sum(1) - 2 * queries @ train.T
    return np.asarray(train_labels)[squares.argmin(1)]


def test_two_sets_are_equal_byte_for_byte(root, tmp_path):
    write_digits(tmp_path / 'again', **SCENES)
    assert hashes(tmp_path / 'again') == hashes(root)


def test_the_number_of_scenes_does_not_change_the_first_scenes(root, tmp_path):
    write_digits(tmp_path / 'small', scenes_train=3, scenes_val=2)
    small, large = hashes(tmp_path / 'small'), hashes(root)
    listings = ('manifest.json', '.txt', 'instances_train.json', 'instances_val.json')
    images = {name: digest for name, digest in small.items() if not name.endswith(listings)}
    assert len(images) == 1797 * 2 + 5 * 3
    assert images.items() <= large.items()


def test_the_seed_changes_split_and_scenes(root, tmp_path, source):
    write_digits(tmp_path / 'other', **SCENES, seed=1)
    assert set(split_digits(source.target, 0)['val']) != set(split_digits(source.target, 1)['val'])
    ours, other = hashes(root), hashes(tmp_path / 'other')
    assert not [n for n in ours if n.startswith('coco/') and ours[n] == other.get(n)]


@pytest.mark.parametrize('changed, unchanged', [('val', 'train'), ('train', 'val')])
def test_no_split_contains_digit_images_of_the_other(
    root, tmp_path, monkeypatch, source, changed, unchanged
):
    # The digit images of one split are replaced by noise. Every file of the other split must stay
    # the same, byte for byte.
    images = source.images.copy()
    indices = split_digits(source.target, 0)[changed]
    images[indices] = np.random.default_rng(0).integers(0, 17, (len(indices), 8, 8))
    monkeypatch.setattr(module, '_load', lambda: (images, source.target))
    write_digits(tmp_path / 'noise', **SCENES)
    ours, other = hashes(root), hashes(tmp_path / 'noise')

    images = {n for n in ours if n.endswith(('.png', '.jpg'))}
    train = {n for n in images if 'train' in n}
    of = {'train': train, 'val': images - train}
    assert len(train) == 1500 + 1500 + 3 * 14
    assert [n for n in of[unchanged] if ours[n] != other.get(n)] == []
    assert [n for n in of[changed] if ours[n] == other.get(n)] == []


def test_the_split_is_stratified_and_complete(source):
    split = split_digits(source.target, 0)
    assert sorted([*split['train'], *split['val']]) == list(range(1797))
    assert len(split['val']) == 297
    shares = np.bincount(source.target[split['val']]) / np.bincount(source.target)
    assert shares.min() > 0.15 and shares.max() < 0.18


def read_folder(root, split, source):
    images, labels = [], []
    for path in sorted((root / 'folder' / split).glob('*/*.png')):
        image = pixels(path)
        assert image.shape == (32, 32, 3)
        images.append(image)
        labels.append(int(path.parent.name))
        assert labels[-1] == source.target[int(path.stem)]
    return np.stack(images), np.array(labels)


def test_class_folders_contain_their_digits(root, source):
    train, train_labels = read_folder(root, 'train', source)
    val, val_labels = read_folder(root, 'val', source)
    assert (len(train), len(val)) == (1500, 297)
    assert set(train_labels) == set(val_labels) == set(range(10))
    centroids = np.stack([train[train_labels == d].mean(0) for d in range(10)])
    assert (nearest_labels(centroids, range(10), val) == val_labels).mean() > 0.85
    assert (nearest_labels(train, train_labels, val) == val_labels).mean() > 0.95


def test_folder_images_are_the_source_enlarged(root, source):
    for path in sorted((root / 'folder' / 'val').glob('*/*.png'))[::10]:
        small = pixels(path)[..., 0].reshape(8, 4, 8, 4).mean((1, 3)) / 255 * 16
        original = source.images[int(path.stem)]
        assert np.corrcoef(small.ravel(), original.ravel())[0, 1] > 0.97


def test_coco_listing_is_consistent(root, coco, source):
    split, listing = coco
    assert [(c['id'], c['name']) for c in listing['categories']] == [
        (i + 1, str(i)) for i in range(10)
    ]
    images = {image['id']: image for image in listing['images']}
    assert len(images) == SCENES[f'scenes_{split}']
    on_disk = sorted(p.name for p in (root / 'coco' / split).iterdir())
    assert sorted(image['file_name'] for image in images.values()) == on_disk
    for image in images.values():
        assert pixels(root / 'coco' / split / image['file_name']).shape == (128, 128, 3)
        assert (image['height'], image['width']) == (128, 128)
    annotations = listing['annotations']
    assert len({a['id'] for a in annotations}) == len(annotations)
    per_image = Counter(a['image_id'] for a in annotations)
    assert set(per_image) == set(images)
    assert 1 < max(per_image.values()) <= 5
    pool = set(split_digits(source.target, 0)[split].tolist())
    covered = {i: np.zeros((128, 128), int) for i in images}
    for a in annotations:
        mask = decode_rle(a['segmentation'])
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert a['bbox'] == box
        assert a['area'] == mask.sum() > 100
        assert a['iscrowd'] == 0
        assert a['digit_image'] in pool
        assert a['category_id'] == source.target[a['digit_image']] + 1
        covered[a['image_id']] += mask
    assert max(c.max() for c in covered.values()) == 1


def test_voc_label_maps_are_the_coco_masks(root, coco):
    split, listing = coco
    voc = root / 'voc'
    names = (voc / 'ImageSets' / 'Segmentation' / f'{split}.txt').read_text().split()
    assert names == [Path(image['file_name']).stem for image in listing['images']]
    for image, name in zip(listing['images'], names, strict=True):
        expected = np.zeros((128, 128), int)
        for a in listing['annotations']:
            if a['image_id'] == image['id']:
                expected[decode_rle(a['segmentation'])] = a['category_id']
        label_map = pixels(voc / 'SegmentationClass' / f'{name}.png', 'P').astype(int)
        np.testing.assert_array_equal(np.where(label_map == 255, 0, label_map), expected)
        # 255 marks exactly the background pixels with a neighbour inside a digit.
        near = np.zeros((130, 130), bool)
        for dy in range(3):
            for dx in range(3):
                near[dy : dy + 128, dx : dx + 128] |= expected > 0
        np.testing.assert_array_equal(label_map == 255, near[1:-1, 1:-1] & (expected == 0))
        png = pixels(root / 'coco' / split / f'{name}.png').astype(float)
        jpg = pixels(voc / 'JPEGImages' / f'{name}.jpg').astype(float)
        assert np.abs(png - jpg).mean() < 4  # it is above 20 for two different scenes


def test_voc_tree_is_complete_and_has_the_palette_of_voc(root):
    voc = root / 'voc'
    listed = [
        *(voc / 'ImageSets' / 'Segmentation' / 'train.txt').read_text().split(),
        *(voc / 'ImageSets' / 'Segmentation' / 'val.txt').read_text().split(),
    ]
    assert len(set(listed)) == len(listed) == 22
    assert {p.stem for p in (voc / 'JPEGImages').iterdir()} == set(listed)
    assert {p.stem for p in (voc / 'SegmentationClass').iterdir()} == set(listed)
    with Image.open(voc / 'SegmentationClass' / f'{listed[0]}.png') as label_map:
        stored = np.array(label_map.getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(stored, voc_palette()[: len(stored)])
    # The values in mmseg's PascalVOCDataset.
    known = {1: (128, 0, 0), 4: (0, 0, 128), 9: (192, 0, 0), 10: (64, 128, 0), 20: (0, 64, 128)}
    for index, colour in known.items():
        assert tuple(voc_palette()[index]) == colour
    assert tuple(voc_palette()[255]) == (224, 224, 192)


def test_the_masks_show_the_digits_of_their_labels(root, coco, source):
    _, listing = coco
    queries, labels, tiles = [], [], []

    def tile(mask):
        rows, columns = np.nonzero(mask)
        crop = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        return np.asarray(Image.fromarray(crop.astype(np.uint8) * 255).resize((12, 12), 4)) / 255

    for a in listing['annotations']:
        queries.append(tile(decode_rle(a['segmentation'])))
        labels.append(a['category_id'] - 1)
    for image in source.images:
        big = Image.fromarray(image.astype(np.float32)).resize((32, 32), Image.Resampling.BICUBIC)
        tiles.append(tile(np.asarray(big) > 8))
    assert (nearest_labels(tiles, source.target, queries) == labels).mean() > 0.8


def test_digits_are_darker_but_no_threshold_separates_them(root):
    overlap = {t: [] for t in range(40, 200, 5)}
    for path in sorted((root / 'coco').glob('*/*.png')):
        grey = pixels(path).mean(2)
        label_map = pixels(root / 'voc' / 'SegmentationClass' / path.name, 'P')
        known, digit = label_map < 255, (label_map > 0) & (label_map < 255)
        assert grey[digit].mean() + 30 < grey[known & ~digit].mean()
        for t, scores in overlap.items():
            dark = (grey < t) & known
            scores.append((dark & digit).sum() / (dark | digit).sum())
    assert max(np.mean(scores) for scores in overlap.values()) < 0.9


def test_unpaired_domains(root, source):
    sets = {}
    for name in ('trainA', 'trainB', 'testA', 'testB'):
        paths = sorted((root / 'unpaired' / name).iterdir())
        sets[name] = {}
        for path in paths:
            index, label = path.stem.split('_label')
            assert source.target[int(index)] == int(label)
            image = pixels(path)
            assert image.shape == (32, 32, 3)
            sets[name][int(index)] = image
    assert [len(s) for s in sets.values()] == [750, 750, 148, 149]
    assert len(set().union(*sets.values())) == 1797
    split = split_digits(source.target, 0)
    assert {*sets['trainA'], *sets['trainB']} == set(split['train'].tolist())
    for name, images in sets.items():
        counts = np.bincount(source.target[list(images)], minlength=10)
        assert np.ptp(counts) <= 0.2 * counts.mean()
        sign = 1 if name.endswith('A') else -1
        for index, image in images.items():
            small = image.mean(2).reshape(8, 4, 8, 4).mean((1, 3))
            ink = source.images[index]
            assert sign * (small[ink > 12].mean() - small[ink < 2].mean()) > 80


@pytest.mark.parametrize('mask', [[[0, 0], [0, 0]], [[1, 1], [1, 1]], [[1, 0], [0, 1], [1, 1]]])
def test_rle_round_trip(mask):
    mask = np.array(mask, bool)
    np.testing.assert_array_equal(decode_rle(encode_rle(mask)), mask)


def test_pycocotools_reads_the_same_masks(root, coco):
    api = pytest.importorskip('pycocotools.coco')
    split, listing = coco
    read = api.COCO(str(root / 'coco' / 'annotations' / f'instances_{split}.json'))
    assert read.getCatIds(catNms=['0', '9']) == [1, 10]
    for a in listing['annotations']:
        mask = read.annToMask(read.anns[a['id']]).astype(bool)
        np.testing.assert_array_equal(mask, decode_rle(a['segmentation']))


@pytest.mark.parametrize(
    'wrong, message',
    [
        ({'scenes_train': 0}, 'scenes_train must be at least 1, got 0'),
        ({'scenes_val': -3}, 'scenes_val must be at least 1, got -3'),
        ({'seed': -1}, r'seed must be in 0\.\.2\*\*32-1, got -1'),
    ],
)
def test_wrong_arguments(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        write_digits(tmp_path / 'digits', **wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('kind', [OSError, KeyboardInterrupt])
def test_a_failure_midway_leaves_nothing(tmp_path, monkeypatch, kind):
    def fail(*args):
        assert list(tmp_path.iterdir()), 'the failure must come after the first files'
        raise kind('disk full')

    monkeypatch.setattr(module, '_write_unpaired', fail)
    with pytest.raises(kind, match='disk full'):
        write_digits(tmp_path / 'data' / 'digits', scenes_train=1, scenes_val=1)
    assert list(tmp_path.iterdir()) == []
