"""UnpairedImages: pairs, sizes, reproducible random numbers, and errors for broken data."""

import logging

import pytest

pytest.importorskip('mmcv')
import torch
from mmengine.dataset import pseudo_collate
from PIL import Image
from torch.utils.data import DataLoader

from nc_plugins.datasets import unpaired
from nc_plugins.datasets.loading import DataError
from nc_plugins.datasets.unpaired import UnpairedImages, list_images, read_rgb


def write(folder, n, size=(10, 10), suffix='.png'):
    """Write uniform images. The grey value of image i is 10 * i."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.new('RGB', size, (10 * i,) * 3).save(folder / f'{i:02d}{suffix}')


@pytest.fixture
def root(tmp_path):
    write(tmp_path / 'trainA', 5)
    write(tmp_path / 'trainB', 3)
    return tmp_path


def make(root, **kwargs):
    settings = dict(folder_A='trainA', folder_B='trainB', load_size=8, crop_size=6) | kwargs
    return UnpairedImages(str(root), **settings)


def number(image):
    """Number of an image of :func:`write`."""
    assert image.dtype == torch.uint8
    assert image.unique().numel() == 1
    return int(image.unique()) // 10


def test_an_item_is_one_image_of_each_domain_with_its_path(root):
    item = make(root)[3]
    assert item['inputs']['A'].shape == item['inputs']['B'].shape == (3, 6, 6)
    assert item['data_samples']['A'] == str(root / 'trainA' / '03.png')
    b = number(item['inputs']['B'])
    assert item['data_samples']['B'] == str(root / 'trainB' / f'{b:02d}.png')


def test_the_length_is_that_of_the_larger_domain(root):
    both = make(root, test_mode=True)
    assert len(both) == 5
    assert [number(both[i]['inputs']['A']) for i in range(5)] == [0, 1, 2, 3, 4]
    assert [number(both[i]['inputs']['B']) for i in range(5)] == [0, 1, 2, 0, 1]
    swapped = make(root, folder_A='trainB', folder_B='trainA', test_mode=True)
    assert len(swapped) == 5
    assert [number(swapped[i]['inputs']['A']) for i in range(5)] == [0, 1, 2, 0, 1]


def test_training_reads_a_in_order_and_b_at_random(root):
    dataset = make(root)
    torch.manual_seed(0)
    drawn = [dataset[i % 5] for i in range(60)]
    assert [number(item['inputs']['A']) for item in drawn] == [0, 1, 2, 3, 4] * 12
    counts = torch.tensor([number(item['inputs']['B']) for item in drawn]).bincount()
    assert len(counts) == 3 and counts.min() > 8


def test_only_training_crops_and_flips(tmp_path):
    ramp = torch.arange(0, 160, 20, dtype=torch.uint8).expand(8, 8)
    for folder in ('trainA', 'trainB'):
        (tmp_path / folder).mkdir()
        Image.fromarray(ramp.numpy()).save(tmp_path / folder / '0.png')
    torch.manual_seed(0)
    train = [make(tmp_path)[0]['inputs']['A'][0, 0] for _ in range(40)]
    assert {int(row[0]) for row in train} == {0, 20, 40, 100, 120, 140}  # 3 crops, each with a flip
    unflipped = [make(tmp_path, flip=False)[0]['inputs']['A'][0, 0] for _ in range(40)]
    assert {int(row[0]) for row in unflipped} == {0, 20, 40}
    test = [make(tmp_path, crop_size=8, test_mode=True)[0]['inputs']['A'][0] for _ in range(3)]
    assert all(torch.equal(image, ramp) for image in test)


def test_sizes_may_be_height_and_width(root):
    assert make(root, load_size=(8, 12), crop_size=[6, 10])[0]['inputs']['B'].shape == (3, 6, 10)
    assert make(root, crop_size=(4, 8), test_mode=True)[0]['inputs']['A'].shape == (3, 4, 8)


def test_random_images_depend_on_torchs_generator(root):
    def draw(seed):
        torch.manual_seed(seed)
        return [number(make(root)[0]['inputs']['B']) for _ in range(8)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_a_missing_folder(root):
    with pytest.raises(FileNotFoundError, match=f'no image folder {root}/trainC'):
        make(root, folder_B='trainC')


def test_a_folder_without_images(root):
    (root / 'trainC').mkdir()
    (root / 'trainC' / 'notes.txt').write_text('no image')
    with pytest.raises(ValueError, match=r'trainC holds no images \(\.bmp'):
        make(root, folder_A='trainC')


def test_only_images_are_listed_whatever_the_case_of_their_suffix(root):
    (root / 'trainA' / 'within').mkdir()
    (root / 'trainA' / 'Thumbs.db').write_text('')
    Image.new('RGB', (4, 4)).save(root / 'trainA' / 'z.JPG')
    names = [path.name for path in list_images(root / 'trainA')]
    assert names == ['00.png', '01.png', '02.png', '03.png', '04.png', 'z.JPG']


@pytest.mark.parametrize('size', [0, -1, (4,), (4, 0), 2.5, 'x'])
def test_invalid_sizes(root, size):
    with pytest.raises((ValueError, TypeError), match=r'crop_size|iterable'):
        make(root, crop_size=size)


def test_a_crop_larger_than_the_image(root):
    message = r'crop_size \(9, 9\) is larger than load_size \(8, 8\)'
    with pytest.raises(ValueError, match=message):
        make(root, crop_size=9)


def break_file(path, how):
    whole = path.read_bytes()
    path.write_bytes({'empty': b'', 'text': b'no image', 'cut': whole[: len(whole) // 2]}[how])


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
@pytest.mark.parametrize('how', ['empty', 'text', 'cut'])
def test_the_error_names_a_broken_image(tmp_path, how, suffix):
    for folder in ('trainA', 'trainB'):
        write(tmp_path / folder, 1, size=(64, 64), suffix=suffix)
    path = tmp_path / 'trainB' / f'00{suffix}'
    break_file(path, how)
    for kwargs in ({}, {'test_mode': True}, {'test_mode': True, 'skip_unreadable': True}):
        with pytest.raises(DataError, match=f'image {path} cannot be read'):
            make(tmp_path, **kwargs)[0]


def test_the_error_of_a_worker_names_a_broken_image(root):
    break_file(root / 'trainA' / '02.png', 'cut')
    loader = DataLoader(make(root), num_workers=1, collate_fn=pseudo_collate)
    with pytest.raises(DataError, match=r'trainA/02\.png cannot be read'):
        list(loader)


def test_the_error_names_a_missing_image(root):
    with pytest.raises(DataError, match=r'gone\.png cannot be read'):
        read_rgb(root / 'gone.png')


def test_training_can_skip_broken_images_and_warns_once(root, monkeypatch):
    logged = []
    monkeypatch.setattr(unpaired, 'print_log', lambda text, **kwargs: logged.append((text, kwargs)))
    break_file(root / 'trainA' / '02.png', 'cut')
    dataset = make(root, skip_unreadable=True)
    assert [number(dataset[i]['inputs']['A']) for i in (1, 2, 3, 2)] == [1, 3, 3, 3]
    [(text, kwargs)] = logged
    assert f'{root / "trainA" / "02.png"} cannot be read' in text
    assert kwargs['level'] == logging.WARNING


def test_an_error_if_no_image_can_be_read(root):
    for path in (root / 'trainB').iterdir():
        break_file(path, 'empty')
    with pytest.raises(DataError, match=r'none of the 3 images in .*trainB can be read'):
        make(root, skip_unreadable=True)[0]


def test_grey_and_palette_images_become_rgb(root):
    for mode in ('L', 'P', 'RGBA'):
        Image.new(mode, (4, 4)).save(root / f'{mode}.png')
        assert read_rgb(root / f'{mode}.png').mode == 'RGB'
