"""Metrics for image translation.

The inputs are the predictions of ``CycleGAN``. Each sample has the images real_A, fake_B, cycled_A,
real_B, fake_A and cycled_B, [3, H, W] in [-1, 1], and the strings path_A and path_B. The path
identifies an image. An image that appears several times counts once: the smaller domain repeats,
and a distributed sampler repeats images to fill its batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from PIL import Image
from torch import Tensor, nn

INCEPTION_FILE = 'pt_inception-2015-12-05-6726825d.pth'
READ_SIDE = 8  # pixels, the size of scikit-learn's digits
KID_SUBSETS, KID_SUBSET_SIZE = 100, 100


def to_uint8(image: Tensor) -> Tensor:
    """Map [-1, 1] to 0..255, rounded and clipped."""
    return ((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


# force: a second import (reload, two names for one file) must register again, not raise.
@METRICS.register_module(force=True)
class CycleL1(BaseMetric):
    """Mean absolute difference between images and their cycled images.

    ``cycle/l1_A`` and ``cycle/l1_B`` are means over pixels, channels and images of a domain. Black
    and white differ by 2, as in the cycle loss without its weight. ``cycle/l1`` is the mean of the
    two. Lower is better, but a model that copies its input also reaches 0.
    """

    default_prefix = 'cycle'

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            self.results.append(
                {
                    domain: (
                        sample[f'path_{domain}'],
                        (sample[f'cycled_{domain}'] - sample[f'real_{domain}']).abs().mean().item(),
                    )
                    for domain in 'AB'
                }
            )

    def compute_metrics(self, results: list) -> dict:
        a, b = (float(np.mean(_once(results, domain))) for domain in 'AB')
        return {'l1': (a + b) / 2, 'l1_A': a, 'l1_B': b}


@METRICS.register_module(force=True)
class DigitsRead(BaseMetric):
    """Percentage of translated digits that a classifier still recognises.

    A support vector machine is trained on the real images of domain B, in grey and at 8x8 pixels.
    ``digits/read`` is its accuracy on translations from A to B. ``digits/read_real`` is its
    accuracy on the real B images of the evaluated set, an upper bound to expect.

    Args:
        train_folder: PNG files of domain B, with names that end in ``_label<digit>``.

    Raises: ImportError without scikit-learn; FileNotFoundError if ``train_folder`` does not exist;
        ValueError if it has no PNG files or a file name has no label.
    """

    default_prefix = 'digits'

    def __init__(self, train_folder: str, **kwargs) -> None:
        super().__init__(**kwargs)
        if find_spec('sklearn') is None:
            raise ImportError('DigitsRead needs scikit-learn: pip install scikit-learn')
        self.train_folder = Path(train_folder)
        if not self.train_folder.is_dir():
            raise FileNotFoundError(
                f'the train_folder of DigitsRead does not exist: {self.train_folder}; '
                'make it with `python -m nc_plugins make-digits data/digits`'
            )
        self._reader = None

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            self.results.append(
                {
                    'A': (sample['path_A'], _small_grey(_to_pil(sample['fake_B']))),
                    'B': (sample['path_B'], _small_grey(_to_pil(sample['real_B']))),
                }
            )

    def compute_metrics(self, results: list) -> dict:
        if self._reader is None:
            self._reader = self._learn()
        shares = {}
        for key, domain in (('read', 'A'), ('read_real', 'B')):
            labels = [label_of(path) for path in dict(row[domain] for row in results)]
            shares[key] = 100 * float(self._reader.score(_once(results, domain), labels))
        return shares

    def _learn(self):
        from sklearn.svm import SVC

        files = sorted(self.train_folder.glob('*.png'))
        if not files:
            raise ValueError(f'DigitsRead: {self.train_folder} has no PNG files')
        pixels = []
        for path in files:
            with Image.open(path) as image:
                pixels.append(_small_grey(image))
        return SVC().fit(pixels, [label_of(path) for path in files])


@METRICS.register_module(force=True)
class InceptionDistance(BaseMetric):
    """FID (arXiv 1706.08500) and KID (arXiv 1801.01401) between translated and real images.

    ``inception/fid_AB`` and ``inception/kid_AB`` compare translations from A to B with the real B
    images of the same set, ``inception/fid_BA`` and ``inception/kid_BA`` translations from B to A
    with the real A images. Lower is better. Values of sets of different sizes cannot be compared.

    torch-fidelity's Inception v3 (the TensorFlow network of 2015) computes the 2,048 features, and
    torchmetrics the distances. KID is the mean over 100 random subsets of 100 images, or of all
    images if there are fewer. The subsets are the same in every evaluation.

    Args:
        weights: path of torch-fidelity's file ``pt_inception-2015-12-05-6726825d.pth``.

    Raises: ValueError if ``weights`` is not that file; ImportError without torchmetrics or
        torch-fidelity. Both before the training starts.
    """

    default_prefix = 'inception'

    def __init__(self, weights: str, **kwargs) -> None:
        super().__init__(**kwargs)
        if not Path(weights).is_file():
            raise ValueError(
                f'InceptionDistance: there is no file {weights}; it needs the Inception weights of '
                f"torch-fidelity ({INCEPTION_FILE}, in the releases of GitHub's "
                'toshas/torch-fidelity); to train without FID and KID, remove InceptionDistance '
                'from val_evaluator and test_evaluator'
            )
        try:
            from torchmetrics.image.fid import NoTrainInceptionV3

            self.network = NoTrainInceptionV3('inception-v3-compat', ['2048'], str(weights), False)
        except ModuleNotFoundError as e:
            raise ImportError(
                'FID and KID need torchmetrics and torch-fidelity: '
                'pip install torchmetrics torch-fidelity'
            ) from e
        except (OSError, EOFError, RuntimeError, UnpicklingError) as e:
            raise ValueError(
                f'InceptionDistance: {weights} does not hold the Inception weights of '
                f'torch-fidelity ({INCEPTION_FILE}): {e}'
            ) from e

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            names = ('fake_B', 'real_A', 'fake_A', 'real_B')
            images = torch.stack([to_uint8(sample[name]) for name in names])
            with torch.no_grad():
                rows = self.network.to(images.device)(images).cpu()
            features = dict(zip(names, rows, strict=True))
            self.results.append(
                {
                    'A': (sample['path_A'], (features['real_A'], features['fake_B'])),
                    'B': (sample['path_B'], (features['real_B'], features['fake_A'])),
                }
            )

    def compute_metrics(self, results: list) -> dict:
        real_A, fake_B = map(torch.stack, zip(*_once(results, 'A'), strict=True))
        real_B, fake_A = map(torch.stack, zip(*_once(results, 'B'), strict=True))
        return {
            'fid_AB': frechet_distance(real_B, fake_B),
            'fid_BA': frechet_distance(real_A, fake_A),
            'kid_AB': kernel_distance(real_B, fake_B),
            'kid_BA': kernel_distance(real_A, fake_A),
        }


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """FID between features [N, D] and [M, D], with N and M at least 2."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    return _distance(FrechetInceptionDistance(_Features(real.shape[1])), real, fake).item()


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """KID between features [N, D] and [M, D]. Does not change the global random state."""
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(KID_SUBSET_SIZE, len(real), len(fake))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        metric = KernelInceptionDistance(
            _Features(real.shape[1]), subsets=KID_SUBSETS, subset_size=size
        )
        return _distance(metric, real, fake)[0].item()


def label_of(path: str | Path) -> int:
    """The digit D of a file name like 0017_labelD.png."""
    stem = Path(path).stem
    before, _, digit = stem.rpartition('_label')
    if not before or not digit.isdigit():
        raise ValueError(f'{path} has no label: the name must be like 0017_label3.png')
    return int(digit)


class _Features(nn.Module):
    """The network for torchmetrics: an identity, because its inputs are features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _distance(metric, real: Tensor, fake: Tensor):
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric.compute()


def _once(results: list[dict], domain: str) -> list:
    """The values of ``domain``, one for each path."""
    return list(dict(row[domain] for row in results).values())


def _to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray(to_uint8(image).permute(1, 2, 0).cpu().numpy())


def _small_grey(image: Image.Image) -> np.ndarray:
    small = image.convert('L').resize((READ_SIDE, READ_SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float32).ravel() / 255
