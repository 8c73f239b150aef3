"""Pictures of predictions: one for each image, under different names."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('mmengine')
import torch
from PIL import Image

from nc_plugins.engine.pictures import PicturesHook, picture_names
from nc_plugins.engine.usage import UsageError


@pytest.mark.parametrize(
    ('paths', 'names'),
    [
        ([], []),
        (['d/a.jpg', 'd/b.png'], ['a.png', 'b.png']),
        (['d/cam1/0.png', 'd/cam2/0.png'], ['cam1/0.png', 'cam2/0.png']),
        (['d/a.jpg', 'd/a.png', 'd/b.png'], ['a.jpg.png', 'a.png.png', 'b.png.png']),
        (['d/A.png', 'd/a.jpg'], ['A.png.png', 'a.jpg.png']),
        (['d/v1.2.jpg', 'd/v1.3.jpg'], ['v1.2.png', 'v1.3.png']),
        (['/x/a.png', '/y/z/a.png'], ['x/a.png', 'y/z/a.png']),
    ],
)
def test_names(paths, names):
    assert picture_names(paths) == dict(zip(paths, names, strict=True))


class Dataset(list):
    def get_data_info(self, index):
        return self[index]


class Visualizer:
    def add_datasample(self, name, image, data_sample, out_file, pred_score_thr=None):
        Image.fromarray(image).save(out_file)


def runner(infos):
    loader = SimpleNamespace(dataset=Dataset(infos))
    return SimpleNamespace(test_dataloader=loader, visualizer=Visualizer())


def test_equal_names_in_two_folders_give_two_pictures(tmp_path):
    infos = []
    for value, folder in enumerate(('cam1', 'cam2')):
        path = tmp_path / 'images' / folder / '0.png'
        path.parent.mkdir(parents=True)
        Image.new('RGB', (4, 4), (value, 0, 0)).save(path)
        infos.append(dict(img_path=str(path)))
    hook, run = PicturesHook(str(tmp_path / 'shown'), pred_score_thr=0.3), runner(infos)
    hook.before_test(run)
    hook.after_test_iter(run, 0, outputs=infos)
    for value, folder in enumerate(('cam1', 'cam2')):
        with Image.open(tmp_path / 'shown' / folder / '0.png') as shown:
            assert np.asarray(shown)[0, 0].tolist() == [value, 0, 0]

    with pytest.raises(UsageError, match=r'would overwrite the image .*cam1/0\.png'):
        PicturesHook(str(tmp_path / 'images')).before_test(run)


def test_images_without_a_file_are_numbered(tmp_path):
    hook, run = PicturesHook(str(tmp_path)), runner([{}, {}])
    hook.before_test(run)
    for batch in range(2):
        inputs = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
        hook.after_test_iter(run, batch, dict(inputs=inputs), outputs=[{}])
    assert sorted(path.name for path in tmp_path.iterdir()) == ['000001.png', '000002.png']
