"""CIFAR10Folders: class folders and pickle files give the same items; error messages."""

import importlib
import pickle
from urllib.error import URLError

import pytest

pytest.importorskip('mmpretrain')
import cv2
import numpy as np
from mmpretrain.registry import DATASETS

from nc_plugins.datasets import cifar10
from nc_plugins.datasets.cifar10 import CIFAR10Folders

CLASSES = CIFAR10Folders.METAINFO['classes']
PER_CLASS = 3


@pytest.fixture(scope='module')
def images():
    """uint8 [10, 3, 32, 32, 3], RGB with different ranges of red, green and blue."""
    rng = np.random.default_rng(0)
    low = np.array([200, 100, 0])
    return (rng.integers(0, 50, (10, PER_CLASS, 32, 32, 3)) + low).astype(np.uint8)


@pytest.fixture
def folders(tmp_path, images):
    for split in ('train', 'test'):
        for name, some in zip(CLASSES, images, strict=True):
            folder = tmp_path / 'folders' / split / name
            folder.mkdir(parents=True)
            for i, image in enumerate(some):
                # OpenCV writes BGR. The suffix may be in upper or lower case.
                assert cv2.imwrite(str(folder / f'{i}.{"PNG" if i else "png"}'), image[..., ::-1])
            (folder / 'notes.txt').write_text('not an image')
    return tmp_path / 'folders'


@pytest.fixture
def pickles(tmp_path, images, monkeypatch):
    """The official layout with one file per split, and the classes mixed as in the original."""
    monkeypatch.setattr(CIFAR10Folders, 'train_list', [['data_batch_1', None]])
    monkeypatch.setattr(CIFAR10Folders, 'test_list', [['test_batch', None]])
    folder = tmp_path / 'pickles' / CIFAR10Folders.base_folder
    folder.mkdir(parents=True)
    rows = images.swapaxes(0, 1).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2).reshape(-1, 3072)
    batch = {'data': rows, 'labels': list(range(10)) * PER_CLASS}
    for name in ('data_batch_1', 'test_batch'):
        (folder / name).write_bytes(pickle.dumps(batch))
    return tmp_path / 'pickles'


def by_class(dataset):
    items = [dataset[i] for i in range(len(dataset))]
    return [np.stack([x['img'] for x in items if x['gt_label'] == k]) for k in range(10)]


@pytest.mark.parametrize('split', ['train', 'test'])
def test_folders_and_pickles_give_the_same_rgb_images(split, folders, pickles, images):
    for root in (folders, pickles):
        dataset = DATASETS.build(dict(type='CIFAR10Folders', data_root=str(root), split=split))
        assert len(dataset) == 10 * PER_CLASS
        assert dataset.CLASSES == CLASSES
        for got, wanted in zip(by_class(dataset), images, strict=True):
            assert got.dtype == np.uint8
            np.testing.assert_array_equal(got, wanted)


def test_skip_leaves_out_the_first_of_each_class(folders, pickles, images):
    for root in (folders, pickles):
        for per_class, right in ((1, images[:, 1:2]), (None, images[:, 1:])):
            dataset = CIFAR10Folders(str(root), per_class=per_class, skip=1)
            np.testing.assert_array_equal(by_class(dataset), right)


def test_per_class_keeps_the_first_of_each_class(folders, pickles, images):
    for root in (folders, pickles):
        dataset = CIFAR10Folders(str(root), per_class=2)
        for got, wanted in zip(by_class(dataset), images, strict=True):
            np.testing.assert_array_equal(got, wanted[:2])


def test_it_takes_a_pipeline_of_mmpretrain(folders):
    crop = dict(type='RandomCrop', crop_size=32, padding=3)
    dataset = CIFAR10Folders(str(folders), pipeline=[crop, dict(type='PackInputs')])
    item = dataset[0]
    assert item['inputs'].shape == (3, 32, 32)
    assert item['data_samples'].gt_label.item() == 0


def test_a_second_import_is_not_an_error(monkeypatch):
    # Restores the first class at the end of the test.
    monkeypatch.setitem(DATASETS.module_dict, 'CIFAR10Folders', CIFAR10Folders)
    monkeypatch.setattr(cifar10, 'CIFAR10Folders', CIFAR10Folders)
    importlib.reload(cifar10)
    assert cifar10.CIFAR10Folders is not CIFAR10Folders
    assert DATASETS.get('CIFAR10Folders') is cifar10.CIFAR10Folders


def test_missing_data_without_download(tmp_path):
    message = f'{tmp_path}/none contains neither train/<class>/ folders nor cifar-10-batches-py'
    with pytest.raises(FileNotFoundError, match=message):
        CIFAR10Folders(str(tmp_path / 'none'), download=False)


def test_a_failed_download_leaves_no_folder(tmp_path, monkeypatch):
    def fail(url, root, **kwargs):
        (tmp_path / 'none').mkdir()
        raise URLError('no network')

    monkeypatch.setattr('mmpretrain.datasets.cifar.download_and_extract_archive', fail)
    with pytest.raises(FileNotFoundError, match=r'download of .* failed \(no network\)'):
        CIFAR10Folders(str(tmp_path / 'none'))
    assert not (tmp_path / 'none').exists()


def test_folders_must_be_the_ten_classes(folders):
    (folders / 'train' / 'cat').rename(folders / 'train' / 'cats')
    message = 'must contain the ten class folders of CIFAR-10; missing or unknown: cat, cats'
    with pytest.raises(ValueError, match=message):
        CIFAR10Folders(str(folders))


def test_too_few_images(folders):
    with pytest.raises(ValueError, match='fewer than 4 images of airplane'):
        CIFAR10Folders(str(folders), per_class=4)
    with pytest.raises(ValueError, match='per_class must be at least 1 or None, got 0'):
        CIFAR10Folders(str(folders), per_class=0)
    with pytest.raises(ValueError, match='fewer than 4 images of airplane'):
        CIFAR10Folders(str(folders), per_class=2, skip=2)
    with pytest.raises(ValueError, match='skip must be at least 0, got -1'):
        CIFAR10Folders(str(folders), skip=-1)


@pytest.mark.parametrize(
    ('size', 'words'), [(None, 'cannot be read'), (31, 'has 31x31 pixels, expected 32x32')]
)
def test_an_image_must_be_32x32(size, words, folders):
    path = folders / 'train' / 'dog' / '0.png'
    path.write_bytes(b'') if size is None else cv2.imwrite(str(path), np.zeros((size, size, 3)))
    with pytest.raises(ValueError, match=rf'image {path} {words}'):
        CIFAR10Folders(str(folders))
