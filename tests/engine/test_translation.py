"""Metrics and pictures of image translation, on small artificial images."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('mmengine')
import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import IterBasedTrainLoop
from PIL import Image

from nc_plugins.engine.translation import WAYS, TranslationVisualizationHook, strip
from nc_plugins.engine.translation_metrics import (
    INCEPTION_FILE,
    CycleL1,
    DigitsRead,
    InceptionDistance,
    frechet_distance,
    kernel_distance,
    label_of,
    to_uint8,
)

NAMES = ('real_A', 'fake_B', 'cycled_A', 'real_B', 'fake_A', 'cycled_B')


def sample(path_A='a/0.png', path_B='b/0.png', size=(4, 4), **values):
    images = {name: torch.full((3, *size), float(values.get(name, 0.0))) for name in NAMES}
    return {**images, 'path_A': path_A, 'path_B': path_B}


def evaluate(metric, samples):
    evaluator = Evaluator([metric])
    for one in samples:
        evaluator.process([one])
    return evaluator.evaluate(len(samples))


def test_cycle_l1_is_the_mean_absolute_difference():
    samples = [
        sample('0', '0', real_A=-1, cycled_A=1, real_B=0.5, cycled_B=0.25),
        sample('1', '1', real_A=0, cycled_A=-0.5, real_B=0, cycled_B=0.25),
    ]
    assert evaluate(CycleL1(), samples) == pytest.approx(
        {'cycle/l1_A': 1.25, 'cycle/l1_B': 0.25, 'cycle/l1': 0.75}
    )


def test_an_image_that_comes_twice_counts_once():
    samples = [
        sample('0', '0', cycled_A=1.0, cycled_B=0.4),
        sample('1', '1', cycled_A=0.0, cycled_B=0.2),
        sample('2', '0', cycled_A=0.5, cycled_B=0.4),
    ]
    found = evaluate(CycleL1(), samples)
    assert found['cycle/l1_A'] == pytest.approx(0.5)
    assert found['cycle/l1_B'] == pytest.approx(0.3)


def digit(label, ink=30, paper=230):
    """A picture for the digit ``label``: a bar whose position depends on it."""
    image = np.full((32, 32, 3), paper, np.uint8)
    image[4 + 8 * label : 8 + 8 * label, 4:28] = ink
    return image


@pytest.fixture
def train_folder(tmp_path):
    folder = tmp_path / 'trainB'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        noisy = digit(i % 3) + rng.integers(-10, 10, (32, 32, 3))
        name = f'{i:04d}_label{i % 3}.png'
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / name)
    return folder


def as_tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1


def digit_sample(number, fake, real=0, label=None):
    label = fake if label is None else label
    return {
        'path_A': f'testA/{number:04d}_label{label}.png',
        'path_B': f'testB/{number:04d}_label{real}.png',
        'fake_B': as_tensor(digit(fake)),
        'real_B': as_tensor(digit(real)),
    }


def test_digits_that_keep_their_shape_are_read(train_folder):
    samples = [digit_sample(i, fake=i % 3, real=i % 3) for i in range(6)]
    found = evaluate(DigitsRead(str(train_folder)), samples)
    assert found == {'digits/read': 100.0, 'digits/read_real': 100.0}


def test_digits_that_became_others_or_negatives_are_not(train_folder):
    samples = [digit_sample(i, fake=i % 3, real=1) for i in range(3)]
    samples.append(digit_sample(3, fake=1, label=2, real=1))
    found = evaluate(DigitsRead(str(train_folder)), samples)
    assert found == {'digits/read': 75.0, 'digits/read_real': 100.0}
    for one in samples:
        one['fake_B'] = -one['fake_B']
    assert evaluate(DigitsRead(str(train_folder)), samples)['digits/read'] < 75


def test_the_reader_learns_once(train_folder, monkeypatch):
    metric = DigitsRead(str(train_folder))
    samples = [digit_sample(i, fake=i % 3) for i in range(3)]
    evaluate(metric, samples)
    monkeypatch.setattr(metric, '_learn', lambda: pytest.fail('learnt again'))
    evaluate(metric, samples)


def test_digits_read_says_what_it_lacks(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'gone.*make-digits'):
        DigitsRead(str(tmp_path / 'gone'))
    with pytest.raises(ValueError, match='has no PNG'):
        evaluate(DigitsRead(str(tmp_path)), [digit_sample(0, fake=0)])


@pytest.mark.parametrize('name', ['0001.png', '_label3.png', '0001_label.png', '0001_labelx.png'])
def test_a_name_without_a_label(name):
    assert label_of('x/0001_label7.png') == 7
    with pytest.raises(ValueError, match='has no label'):
        label_of(name)


def test_fid_without_weights_says_what_is_wanted_and_how_to_go_without(tmp_path):
    with pytest.raises(
        ValueError, match=f'(?s)gone.pth.*{INCEPTION_FILE}.*remove InceptionDistance'
    ):
        InceptionDistance(str(tmp_path / 'gone.pth'))


@pytest.mark.parametrize('content', [b'', b'no checkpoint', b'cut'])
def test_fid_with_a_file_that_is_something_else(tmp_path, content):
    pytest.importorskip('torch_fidelity')
    path = tmp_path / INCEPTION_FILE
    if content == b'cut':
        torch.save({'weight': torch.zeros(1000)}, path)
        content = path.read_bytes()[:500]
    path.write_bytes(content)
    with pytest.raises(ValueError, match='does not hold the Inception weights'):
        InceptionDistance(str(path))


def test_fid_with_the_weights_of_another_network(tmp_path):
    pytest.importorskip('torch_fidelity')
    torch.save({'weight': torch.zeros(3)}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='does not hold the Inception weights'):
        InceptionDistance(str(tmp_path / 'other.pth'))


def test_frechet_distance_is_that_of_two_gaussians():
    pytest.importorskip('torchmetrics')
    torch.manual_seed(0)
    a, b = torch.randn(200, 6), torch.randn(300, 6) * 2 + 1
    found = frechet_distance(a, b)
    mean = (a.mean(0) - b.mean(0)).double().square().sum()
    cov = [torch.cov(x.T.double()) for x in (a, b)]
    root = torch.linalg.eigvals(cov[0] @ cov[1]).sqrt().real.sum()
    assert found == pytest.approx(
        float(mean + cov[0].trace() + cov[1].trace() - 2 * root), rel=1e-4
    )
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-4)


def test_kernel_distance_is_the_unbiased_estimate_and_repeats():
    pytest.importorskip('torchmetrics')
    torch.manual_seed(0)
    a, b = torch.randn(20, 6), torch.randn(20, 6) + 1
    state = torch.get_rng_state()
    found = kernel_distance(a, b)
    assert torch.equal(torch.get_rng_state(), state)
    assert kernel_distance(a, b) == found

    def kernel(x, y):
        return (x @ y.T / 6 + 1) ** 3

    n = 20
    within = sum((kernel(x, x).sum() - kernel(x, x).trace()) / (n * (n - 1)) for x in (a, b))
    assert found == pytest.approx(float(within - 2 * kernel(a, b).mean()), rel=1e-4)


def test_inception_distance_pairs_translations_with_the_real_images_of_their_domain(
    tmp_path, monkeypatch
):
    pytest.importorskip('torch_fidelity')
    fid = pytest.importorskip('torchmetrics.image.fid')
    asked = []

    class Eye(torch.nn.Module):
        """Features of an image: its first pixel, in three channels."""

        def __init__(self, *args):
            super().__init__()
            asked.append(args)

        def forward(self, images):
            assert images.dtype == torch.uint8
            return images[:, :, 0, 0].float() / 100

    monkeypatch.setattr(fid, 'NoTrainInceptionV3', Eye)
    weights = tmp_path / INCEPTION_FILE
    weights.write_bytes(b'')
    torch.manual_seed(0)
    samples = []
    for i in range(8):
        one = {name: torch.rand(3, 1, 1) * 2 - 1 for name in NAMES}
        one['fake_B'] = one['real_B']  # a perfect A -> B
        samples.append({**one, 'path_A': f'{i}', 'path_B': f'{i}'})
    found = evaluate(InceptionDistance(str(weights)), samples)
    assert asked == [('inception-v3-compat', ['2048'], str(weights), False)]
    assert sorted(found) == [f'inception/{m}_{way}' for m in ('fid', 'kid') for way in ('AB', 'BA')]
    assert found['inception/fid_AB'] == pytest.approx(0, abs=1e-3)
    assert found['inception/fid_BA'] > 0.01
    assert all(math.isfinite(value) for value in found.values())


def test_fid_without_its_packages_names_them(tmp_path, monkeypatch):
    (tmp_path / 'weights.pth').write_bytes(b'')
    monkeypatch.setitem(sys.modules, 'torchmetrics.image.fid', None)
    with pytest.raises(ImportError, match='pip install torchmetrics torch-fidelity'):
        InceptionDistance(str(tmp_path / 'weights.pth'))


def test_pixels_go_back_to_where_they_came_from():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, 16, 16)
    assert torch.equal(to_uint8(pixels.float() / 127.5 - 1), pixels)
    assert to_uint8(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


def test_a_strip_shows_input_translation_and_the_way_back():
    one = sample(size=(2, 3), real_B=-1, fake_A=0.2, cycled_B=1)
    picture = strip(one, 'BA')
    assert picture.shape == (2, 9, 3)
    assert picture[0, ::3, 0].tolist() == [0, 153, 255]


class Backend:
    def __init__(self):
        self.images = []

    def add_image(self, name, image, step=0):
        self.images.append((name, image.shape, step))


class FakeRunner:
    def __init__(self, work_dir):
        self.work_dir, self.epoch, self.iter = str(work_dir), 7, 1500
        self.train_loop = None
        self.visualizer = type('Visualizer', (), {'_vis_backends': {'x': Backend()}})()


def test_a_validation_leaves_one_grid_in_the_run_folder_and_in_the_backends(tmp_path):
    runner, hook = FakeRunner(tmp_path), TranslationVisualizationHook(rows=3)
    for _ in range(2):
        hook.before_val_epoch(runner)
        for batch_idx in range(4):
            hook.after_val_iter(runner, batch_idx, outputs=[sample(), sample()])
        hook.after_val_epoch(runner)
    files = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*') if p.is_file()]
    assert files == ['samples/epoch_007.png']
    with Image.open(tmp_path / files[0]) as grid:
        assert grid.size == (2 * 3 * 4, 3 * 4)
    assert runner.visualizer._vis_backends['x'].images == [('samples', (12, 24, 3), 7)] * 2


def test_where_iterations_are_counted_they_name_the_grid(tmp_path):
    runner, hook = FakeRunner(tmp_path), TranslationVisualizationHook(rows=1)
    runner.train_loop = object.__new__(IterBasedTrainLoop)
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, outputs=[sample()])
    hook.after_val_epoch(runner)
    assert (tmp_path / 'samples/iter_1500.png').is_file()
    assert runner.visualizer._vis_backends['x'].images == [('samples', (4, 24, 3), 1500)]


def test_no_rows_no_grid(tmp_path):
    runner, hook = FakeRunner(tmp_path), TranslationVisualizationHook(rows=0)
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, outputs=[sample()])
    hook.after_val_epoch(runner)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match='rows must be'):
        TranslationVisualizationHook(rows=-1)


def test_a_test_draws_every_image_under_its_name_where_it_was_told_to(tmp_path):
    names = ['0.jpg', '1.png', '2.jpg', '2.png']
    samples = [sample(f'd/testA/{name}', 'd/testB/0.jpg') for name in names]
    runner = FakeRunner(tmp_path / 'run')
    files = {'A': [Path('d/testA', name) for name in names], 'B': [Path('d/testB/0.jpg')]}
    dataset = SimpleNamespace(files=files)
    runner.test_dataloader = SimpleNamespace(dataset=dataset)
    show = tmp_path / 'show'
    TranslationVisualizationHook(test_out_dir=str(show)).after_test_iter(runner, 0, outputs=samples)
    assert list(tmp_path.iterdir()) == []
    for folder, out_dir in ((show, str(show)), (tmp_path / 'run' / 'translated', None)):
        hook = TranslationVisualizationHook(draw=True, test_out_dir=out_dir)
        hook.before_test(runner)
        hook.after_test_iter(runner, 0, outputs=samples)
        files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*.png'))
        assert files == ['AB/0.jpg.png', 'AB/1.png.png', 'AB/2.jpg.png', 'AB/2.png.png', 'BA/0.png']
    assert set(WAYS) == {'AB', 'BA'}
