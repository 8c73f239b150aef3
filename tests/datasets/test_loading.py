"""Loading transforms: the pixels and labels of OpenMMLab's, and errors that name the file."""

import io
import logging
import pickle

import numpy as np
import pytest

pytest.importorskip('mmcv')
import mmcv
from mmcv.transforms import TRANSFORMS, LoadImageFromFile
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from PIL import Image
from torch.utils.data import DataLoader

from nc_plugins.datasets.loading import DataError, LoadImage, LoadSegMap

HEIGHT, WIDTH = 40, 56
EXIF_ORIENTATION = 0x112


def picture(mode='RGB', size=(WIDTH, HEIGHT)):
    """Blocks of random colours. Most bytes of the JPEG file encode pixels, few are its header."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
    return Image.fromarray(np.kron(blocks, np.ones((4, 4, 1), np.uint8))).convert(mode)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated(kind, orientation):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return encoded(picture(), kind, exif=exif)


GOOD = {
    'jpeg': encoded(picture(), 'JPEG'),
    'jpeg-progressive-444': encoded(picture(), 'JPEG', progressive=True, subsampling=0),
    'jpeg-grey': encoded(picture('L'), 'JPEG'),
    'png': encoded(picture(), 'PNG'),
    'png-grey': encoded(picture('L'), 'PNG'),
    'png-palette': encoded(picture('P'), 'PNG'),
    'png-alpha': encoded(picture('RGBA'), 'PNG'),
    **{f'jpeg-exif-{n}': rotated('JPEG', n) for n in range(1, 9)},
    'png-exif-6': rotated('PNG', 6),
}
BAD = {
    'missing': None,
    'empty': b'',
    'corrupt': b'not an image at all' * 20,
    'half a jpeg': GOOD['jpeg'][: len(GOOD['jpeg']) // 2],
    'jpeg without its last 20 bytes': GOOD['jpeg'][:-20],
    'half a progressive jpeg': GOOD['jpeg-progressive-444'][:-500],
    'half a png': GOOD['png'][: len(GOOD['png']) // 2],
    'png with a broken checksum': GOOD['png'].replace(b'IDAT', b'IDAT\x01', 1),
}


def written(folder, content, name='street 17.png'):
    path = folder / name
    if content is not None:
        path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize('kind', GOOD)
def test_pixels_shapes_and_keys_equal_those_of_mmcv(tmp_path, kind):
    path = written(tmp_path, GOOD[kind])
    ours = LoadImage().transform(dict(img_path=path))
    theirs = LoadImageFromFile().transform(dict(img_path=path))
    assert ours.keys() == theirs.keys()
    np.testing.assert_array_equal(ours['img'], theirs['img'])
    assert ours['img'].dtype == np.uint8 and ours['img'].shape[2] == 3
    assert ours['ori_shape'] == theirs['ori_shape']


def test_colours_come_in_the_order_blue_green_red(tmp_path):
    path = written(tmp_path, encoded(Image.new('RGB', (8, 8), (250, 20, 30)), 'PNG'))
    assert LoadImage().transform(dict(img_path=path))['img'][0, 0].tolist() == [30, 20, 250]


@pytest.mark.parametrize('kind', BAD)
def test_the_error_names_the_image_in_one_sentence(tmp_path, kind):
    path = written(tmp_path, BAD[kind])
    with pytest.raises(DataError, match=r'image .*street 17\.png cannot be read') as caught:
        LoadImage().transform(dict(img_path=path))
    assert '\n' not in str(caught.value)
    assert caught.value.sentence == str(caught.value)


def test_the_error_contains_the_reason(tmp_path):
    with pytest.raises(DataError, match='there is no such file'):
        LoadImage().transform(dict(img_path=str(tmp_path / 'a.jpg')))
    with pytest.raises(DataError, match='truncated'):
        LoadImage().transform(dict(img_path=written(tmp_path, BAD['half a jpeg'])))


@pytest.mark.parametrize('kind', ['missing', 'empty', 'corrupt'])
def test_opencv_can_decode_instead(tmp_path, kind):
    load = LoadImage(imdecode_backend='cv2')
    assert load(dict(img_path=written(tmp_path, GOOD['png'])))['img'].shape == (HEIGHT, WIDTH, 3)
    path = written(tmp_path, BAD[kind], 'bad.png')
    with pytest.raises(DataError, match=r'bad\.png cannot be read'):
        load(dict(img_path=path))


@pytest.mark.parametrize('kind', BAD)
def test_skipping_warns_once_per_file_and_returns_none(tmp_path, kind, caplog, monkeypatch):
    monkeypatch.setattr(MMLogger.get_current_instance(), 'handlers', [caplog.handler])
    paths = [written(tmp_path, BAD[kind], f'{n}.jpg') for n in (1, 2)]
    load = LoadImage(skip_unreadable=True)
    assert [load(dict(img_path=p)) for p in (*paths, *paths)] == [None] * 4
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [p in w for p, w in zip(paths, warnings, strict=True)] == [True, True]


def test_repr():
    assert 'skip_unreadable=True' in repr(LoadImage(skip_unreadable=True))


class Files(BaseDataset):
    def load_data_list(self):
        return [dict(img_path=path) for path in self.paths]

    def __init__(self, paths, **kwargs):
        self.paths = paths
        super().__init__(**kwargs)


def pictures(folder, **load):
    good = [written(folder, GOOD['png'], f'{n}.png') for n in range(3)]
    bad = written(folder, BAD['half a jpeg'], 'broken.jpg')
    return Files([bad, *good], pipeline=[dict(type='LoadImage', **load)])


def test_a_training_set_loads_another_sample_only_with_skip_unreadable(tmp_path):
    with pytest.raises(DataError, match=r'broken\.jpg'):
        pictures(tmp_path)[0]
    assert pictures(tmp_path, skip_unreadable=True)[0]['img_path'] != str(tmp_path / 'broken.jpg')


def test_the_message_survives_a_worker_and_pickling(tmp_path):
    loader = DataLoader(pictures(tmp_path), batch_size=1, num_workers=1, collate_fn=list)
    with pytest.raises(DataError) as caught:
        list(loader)
    sentence = caught.value.sentence
    assert sentence.startswith('image ') and 'broken.jpg cannot be read' in sentence
    assert '\n' not in sentence
    assert pickle.loads(pickle.dumps(caught.value)).sentence == sentence


def label_map(labels, mode='P'):
    image = Image.fromarray(np.asarray(labels, np.uint8)).convert('L')
    if mode == 'P':
        image.putpalette([n for n in range(256) for _ in range(3)])
    return encoded(image if mode in 'PL' else image.convert(mode), 'PNG')


def seg_results(folder, content):
    return dict(
        img_path=written(folder, encoded(picture(size=(8, 12)), 'JPEG'), 'a.jpg'),
        seg_map_path=written(folder, content, 'a.png'),
        img=np.zeros((24, 16, 3), np.uint8),  # after a resize
        ori_shape=(12, 8),
        reduce_zero_label=False,
        label_map=None,
        seg_fields=[],
    )


LABELS = np.random.default_rng(0).integers(0, 4, (12, 8))
LABELS[0, :] = 255
BAD_MAPS = {
    'missing': (None, 'cannot be read .there is no such file'),
    'empty': (b'', 'cannot be read .empty, or not an image'),
    'half': (label_map(LABELS)[:-60], 'cannot be read'),
    'transposed': (label_map(LABELS.T), r'has 12x8 pixels, but its image .*a\.jpg has 8x12'),
    'coloured': (
        label_map(LABELS, 'RGB'),
        'has 3 channels instead of one channel of class indices',
    ),
    'out of range': (
        label_map(LABELS + (LABELS == 3) * 1),
        'contains the labels 4, but only 0 to 3 and 255',
    ),
}


@pytest.fixture
def mmseg():
    return pytest.importorskip('mmseg')


@pytest.mark.parametrize('mode', ['P', 'L'])
def test_a_good_label_map_is_loaded_as_mmseg_does(tmp_path, mmseg, mode):
    results = LoadSegMap(num_classes=4)(seg_results(tmp_path, label_map(LABELS, mode)))
    theirs = TRANSFORMS.build(dict(type='mmseg.LoadAnnotations'))
    expected = theirs(seg_results(tmp_path, label_map(LABELS, mode)))
    assert results.keys() == expected.keys()
    np.testing.assert_array_equal(results['gt_seg_map'], LABELS)
    np.testing.assert_array_equal(expected['gt_seg_map'], LABELS)
    assert results['seg_fields'] == ['gt_seg_map']


@pytest.mark.parametrize('kind', BAD_MAPS)
def test_the_error_names_the_label_map_in_one_sentence(tmp_path, mmseg, kind):
    content, words = BAD_MAPS[kind]
    with pytest.raises(DataError, match=r'label map .*a\.png ' + words) as caught:
        LoadSegMap(num_classes=4)(seg_results(tmp_path, content))
    assert '\n' not in str(caught.value)


def test_labels_are_checked_after_mmseg_has_mapped_them(tmp_path, mmseg):
    results = seg_results(tmp_path, label_map(LABELS))
    results['label_map'] = {3: 0}
    assert LoadSegMap(num_classes=3)(results)['gt_seg_map'].max() == 255
    results = seg_results(tmp_path, label_map(LABELS))
    results['reduce_zero_label'] = True
    assert set(np.unique(LoadSegMap(num_classes=3)(results)['gt_seg_map'])) == {0, 1, 2, 255}


def test_another_ignored_label(tmp_path, mmseg):
    with pytest.raises(DataError, match='contains the labels 255, but only 0 to 3 and 9 '):
        LoadSegMap(num_classes=4, ignore_index=9)(seg_results(tmp_path, label_map(LABELS)))


def test_a_pipeline_of_mmseg_skips_or_raises(tmp_path, mmseg):
    from mmseg.registry import DATASETS

    for name, image in (('a', encoded(picture(size=(8, 12)), 'JPEG')), ('b', b'')):
        written(tmp_path, image, f'{name}.jpg')
        written(tmp_path, label_map(LABELS), f'{name}.png')

    def dataset(**load):
        pipeline = [dict(type='LoadImage', **load), dict(type='LoadSegMap', num_classes=4)]
        return DATASETS.build(
            dict(
                type='BaseSegDataset',
                data_root=str(tmp_path),
                data_prefix=dict(img_path='', seg_map_path=''),
                metainfo=dict(classes=list('abcd')),
                pipeline=[*pipeline, dict(type='PackSegInputs')],
            )
        )

    with DefaultScope.overwrite_default_scope('mmseg'):
        packed = dataset(skip_unreadable=True)[1]
        assert packed['data_samples'].img_path.endswith('a.jpg')
        with pytest.raises(DataError, match=r'b\.jpg'):
            dataset()[1]


def test_mmcv_reads_the_good_files():
    for kind, content in GOOD.items():
        assert mmcv.imfrombytes(content) is not None, kind
