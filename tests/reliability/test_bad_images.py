"""Images, label maps, lists and folders with a mistake are named, and unusual ones are read right.

The configs are those of upstream, with mmcv's and mmseg's own loaders.
"""

import struct
import zlib

import numpy as np
import pytest

pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.fileio.io import backend_instances
from PIL import Image

from nc_plugins.datasets import images, loading
from nc_plugins.datasets.unpaired import UnpairedImages

from .reading import picture, read

SIZE = (20, 16)  # width, height
LABELS = np.random.default_rng(0).integers(0, 3, SIZE[::-1]).astype(np.uint8)
CLASSES = ('background', 'bracket', 'washer')


def bomb():
    """A PNG of a few bytes that claims 40,000 x 40,000 pixels."""

    def chunk(kind, data):
        check = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + check

    header = struct.pack('>IIBBBBB', 40_000, 40_000, 8, 2, 0, 0, 0)
    content = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(bytes(1000)))
    return b'\x89PNG\r\n\x1a\n' + content + chunk(b'IEND', b'')


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def grey(dtype, factor=1, suffix='.png'):
    """Replace the image by one whose grey values are ``factor`` times those of its red channel."""

    def change(path):
        values = np.asarray(Image.open(path).convert('RGB'))[..., 0].astype(dtype) * factor
        path.unlink()
        Image.fromarray(values.astype(dtype)).save(path.with_suffix(suffix))

    return change


def large_jpeg(path):
    path.unlink()
    picture(path.with_suffix('.jpg'), (300, 200))
    cut(path.with_suffix('.jpg'))


BAD_FILES = {
    'empty': (lambda path: path.write_bytes(b''), 'empty, or not an image'),
    'text': (lambda path: path.write_bytes(b'not an image' * 99), 'empty, or not an image'),
    'cut png': (cut, 'cannot be read'),
    'cut jpeg': (large_jpeg, 'truncated'),
    'AppleDouble': (lambda path: path.write_bytes(b'\0\5\26\7' + bytes(4000)), 'not an image'),
    'bomb': (lambda path: path.write_bytes(bomb()), 'decompression bomb'),
    'float': (grey(np.float32, suffix='.tif'), 'floating point numbers'),
    '32 bit': (grey(np.int32, 70_000, suffix='.tif'), '32-bit integer numbers'),
}


def class_folders(root, classes=('a', 'b'), suffix='.png'):
    for number, name in enumerate(classes):
        for place in range(2):
            picture(root / 'train' / name / f'{place}{suffix}', SIZE, seed=9 * number + place)
    return dict(
        type='CustomDataset',
        data_root=str(root),
        data_prefix='train',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    )


@pytest.mark.parametrize('kind', BAD_FILES)
def test_a_bad_image_of_a_classifier_is_named(kind, tmp_path):
    damage, words = BAD_FILES[kind]
    dataset = class_folders(tmp_path)
    damage(tmp_path / 'train/a/1.png')
    sentence = read('mmpretrain', dataset)
    assert f'{tmp_path}/train/a/1.' in sentence and words in sentence


@pytest.mark.parametrize('kind', BAD_FILES)
def test_a_bad_image_of_a_domain_is_named(kind, tmp_path):
    damage, words = BAD_FILES[kind]
    for folder in 'AB':
        picture(tmp_path / folder / '1.png', SIZE)
    damage(tmp_path / 'B/1.png')
    dataset = UnpairedImages(str(tmp_path), 'A', 'B', load_size=16, crop_size=16)
    with pytest.raises(loading.DataError, match=words) as caught:
        dataset[0]
    assert f'{tmp_path}/B/1.' in str(caught.value)


def test_16_bit_images_are_scaled_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(images, '_warned', [])
    logged = []
    monkeypatch.setattr(images, 'print_log', lambda text, *rest: logged.append(text))
    dataset = class_folders(tmp_path)
    right = np.asarray(Image.open(tmp_path / 'train/a/0.png'))[..., 0]
    for path in sorted(tmp_path.rglob('*.png')):
        grey(np.uint16, 257)(path)
    samples = read('mmpretrain', dataset)
    np.testing.assert_array_equal(samples[0]['inputs'].numpy(), np.stack([right] * 3))
    assert len(logged) == 1 and 'train/a/0.png has 16 bits' in logged[0]


def hide(root, name='.ipynb_checkpoints'):
    picture(root / 'train' / name / '0.png', SIZE)
    picture(root / 'train/a' / name / '0.png', SIZE)
    (root / 'train/b/._0.png').write_bytes(b'\0\5\26\7')
    (root / 'train/.DS_Store').write_bytes(b'x')


@pytest.mark.parametrize('name', ['.ipynb_checkpoints', '__MACOSX', '.git'])
def test_hidden_files_and_folders_are_left_out(name, tmp_path):
    dataset = class_folders(tmp_path)
    hide(tmp_path, name)
    # mmengine keeps the backend that reads a first file.
    register_backend('local', LocalBackend, force=True, prefixes='')
    backend_instances.clear()
    get_file_backend(str(tmp_path), enable_singleton=True)
    samples = read('mmpretrain', dataset)
    assert [int(sample['data_samples'].gt_label) for sample in samples] == [0, 0, 1, 1]


def test_the_number_of_class_folders_must_be_that_of_the_head(tmp_path):
    dataset = class_folders(tmp_path)
    for number in (1, 3):
        sentence = read('mmpretrain', dataset, num_classes=number)
        assert f'model.decode_head.num_classes is {number}, but its data has 2' in sentence
    (tmp_path / 'train').rename(tmp_path / 'inner')
    (tmp_path / 'train').mkdir()
    (tmp_path / 'inner').rename(tmp_path / 'train/images')
    sentence = read('mmpretrain', dataset)
    assert "num_classes is 2, but its data has 1 ('images',)" in sentence


@pytest.mark.parametrize(('label', 'wanted'), [(1, None), (2, 'label 2'), (-1, 'label -1')])
def test_labels_of_a_list_must_fit_the_head(label, wanted, tmp_path):
    dataset = class_folders(tmp_path)
    (tmp_path / 'list.txt').write_text(f'a/0.png 0\nb/1.png {label}\n')
    result = read('mmpretrain', dict(dataset, ann_file='list.txt'))
    if wanted is None:
        assert [int(sample['data_samples'].gt_label) for sample in result] == [0, 1]
    else:
        assert f'{tmp_path}/list.txt has the {wanted}, but with 2 classes' in result


def segmentation(root, encode=lambda labels: labels, names=('1', '2'), suffix='.png'):
    for number, name in enumerate(names):
        picture(root / 'img' / f'{name}.jpg', SIZE, seed=number)
        path = root / 'ann' / f'{name}{suffix}'
        path.parent.mkdir(exist_ok=True)
        encoded = encode(LABELS)
        image = encoded if isinstance(encoded, Image.Image) else Image.fromarray(encoded)
        image.save(path)
    (root / 'list.txt').write_text(''.join(f'{name}\n' for name in names))
    return dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='img', seg_map_path='ann'),
        ann_file='list.txt',
        seg_map_suffix=suffix,
        metainfo=dict(classes=CLASSES, palette=[[0, 0, 0], [200, 0, 0], [0, 200, 0]]),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    )


def colour(mode):
    return lambda labels: Image.fromarray(labels * 90).convert(mode)


def palette(labels):
    image = Image.fromarray(labels).convert('P')
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    return image


RIGHT_MAPS = {
    '8 bit': lambda labels: labels,
    'palette': palette,
    '16 bit': lambda labels: labels.astype(np.uint16),
    '32 bit': lambda labels: labels.astype(np.int32),
}
BAD_MAPS = {
    'colour': (colour('RGB'), 'has 3 channels'),
    'equal channels': (lambda labels: np.dstack([labels] * 3), 'has 3 channels'),
    'transparent': (colour('RGBA'), 'has 4 channels'),
    'grey with alpha': (colour('LA'), 'has 2 channels'),
    '16 bit, times 256': (lambda x: x.astype(np.uint16) * 256, 'contains the label 512'),
    '16 bit, plus 256': (lambda x: x.astype(np.uint16) + 256, 'contains the label 258'),
    '32 bit, large': (lambda x: x.astype(np.int32) * 70_000, 'contains the label 140000'),
    '32 bit, negative': (lambda x: -x.astype(np.int32), 'contains the label -2'),
    'out of range': (lambda x: x + 1, 'contains the labels 3'),
    'other size': (lambda x: x[:-1], 'has 20x15 pixels, but its image'),
    'turned': (lambda x: x.T.copy(), 'has 16x20 pixels, but its image'),
    'all background': (lambda x: x * 0, "class 'bracket' (label 1), 'washer' (label 2) occurs in"),
    '0 and 255': (lambda x: (x > 0).astype(np.uint8) * 255, '255 also occurs, and it is ignored'),
}


@pytest.mark.parametrize('kind', RIGHT_MAPS)
def test_a_label_map_is_read_right(kind, tmp_path):
    suffix = '.tif' if kind == '32 bit' else '.png'
    samples = read('mmseg', segmentation(tmp_path, RIGHT_MAPS[kind], suffix=suffix), num_classes=3)
    assert not isinstance(samples, str), samples
    for sample in samples:
        np.testing.assert_array_equal(sample['data_samples'].gt_sem_seg.data[0], LABELS)


@pytest.mark.parametrize('kind', BAD_MAPS)
def test_a_bad_label_map_is_named(kind, tmp_path):
    encode, words = BAD_MAPS[kind]
    suffix = '.tif' if kind.startswith('32') else '.png'
    sentence = read('mmseg', segmentation(tmp_path, encode, suffix=suffix), num_classes=3)
    assert isinstance(sentence, str), 'no error'
    assert f'{tmp_path}/ann/' in sentence and words in sentence


@pytest.mark.parametrize('content', [b'', b'text', bomb()])
def test_a_label_map_that_is_no_image_is_named(content, tmp_path):
    dataset = segmentation(tmp_path)
    (tmp_path / 'ann/2.png').write_bytes(content)
    assert f'label map {tmp_path}/ann/2.png cannot' in read('mmseg', dataset, num_classes=3)


def test_a_jpeg_is_no_label_map(tmp_path):
    sentence = read('mmseg', segmentation(tmp_path, suffix='.jpg'), num_classes=3)
    assert 'is a JPEG, which changes labels' in sentence


def test_a_class_that_occurs_nowhere_is_said(tmp_path, capfd):
    dataset = segmentation(tmp_path, lambda labels: np.where(labels == 2, 255, labels))
    assert len(read('mmseg', dataset, num_classes=3)) == 2
    said = ''.join(capfd.readouterr())
    assert "class 'washer' (label 2) occurs in no label map" in said
    assert 'the label 255 also occurs, and it is ignored' in said


LISTS = {
    'empty': ('', 'list.txt lists no images'),
    'blank line': ('1\n\n2\n', "img/.jpg' of line 2 of"),
    'byte order mark': ('\ufeff1\n2\n', 'of line 1 of'),
    'with suffix': ('1\n2.jpg\n', "2.jpg.jpg' of line 2 of"),
    'two columns': ('1  1\n2 -1\n', "1  1.jpg' of line 1 of"),
    'gone': ('1\n3\n', "3.jpg' of line 2 of"),
}


@pytest.mark.parametrize('kind', LISTS)
def test_a_bad_list_is_named(kind, tmp_path):
    text, words = LISTS[kind]
    dataset = segmentation(tmp_path)
    (tmp_path / 'list.txt').write_text(text, encoding='utf-8')
    sentence = read('mmseg', dataset, num_classes=3)
    assert words in sentence and f'{tmp_path}/list.txt' in sentence


@pytest.mark.parametrize('text', ['1\r\n2\r\n', '1 \n2\t\n', '1\n2'])
def test_an_unusual_list_is_read(text, tmp_path):
    dataset = segmentation(tmp_path)
    (tmp_path / 'list.txt').write_bytes(text.encode())
    assert len(read('mmseg', dataset, num_classes=3)) == 2


def test_upper_case_suffixes_are_named(tmp_path):
    dataset = dict(segmentation(tmp_path), ann_file='')
    for path in (tmp_path / 'img').iterdir():
        path.rename(path.with_suffix('.JPG'))
    assert f"{tmp_path}/img lists no images with names that end in '.jpg'" in read('mmseg', dataset)


def test_the_number_of_classes_of_a_segmenter(tmp_path):
    for number in (2, 5):
        sentence = read('mmseg', segmentation(tmp_path), num_classes=number)
        assert f'model.decode_head.num_classes is {number}, but its data has 3' in sentence


def test_a_link_to_nothing_is_named(tmp_path):
    for folder in 'AB':
        picture(tmp_path / folder / '1.png', SIZE)
    (tmp_path / 'A/2.png').symlink_to('/nowhere/2.png')
    with pytest.raises(FileNotFoundError, match=r'A/2\.png is a link to a file that does not'):
        UnpairedImages(str(tmp_path), 'A', 'B', load_size=16, crop_size=16)


def test_images_that_are_not_read_are_said(tmp_path, capfd):
    dataset = class_folders(tmp_path)
    picture(tmp_path / 'train/b/9.webp', SIZE)
    assert len(read('mmpretrain', dataset)) == 4
    said = ''.join(capfd.readouterr())
    assert f'1 images in {tmp_path}/train (the first is {tmp_path}/train/b/9.webp) are not' in said

    dataset = dict(segmentation(tmp_path), ann_file='')
    picture(tmp_path / 'img/9.JPG', SIZE)
    assert len(read('mmseg', dataset, num_classes=3)) == 2
    assert f'(the first is {tmp_path}/img/9.JPG) are not read' in ''.join(capfd.readouterr())
