"""CycleGAN (Zhu et al., arXiv 1703.10593) on mmengine: two translators without image pairs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from . import cyclegan_networks  # noqa: F401 (registers the networks)

MODES = ('tensor', 'predict', 'loss')


# force=True: a second import of this file under another name must not be an error.
@MODELS.register_module(force=True)
class CycleGAN(BaseModel):
    """Learn A -> B and B -> A from unpaired images.

    Each direction has a generator that wants to deceive the discriminator of its target domain
    (least squares), to be undone by the other generator (cycle, L1) and to leave images of its
    target domain alone (identity, L1).

    Args:
        generator, discriminator: configs of the networks; two of each are built.
        cycle_weight: of the cycle losses; 10 in the paper.
        identity_weight: of the identity losses; 0.5 * 10 in the paper.
        pool_size: generated images a domain that its discriminator is reminded of; 50 in the paper.
            The pool is not part of a checkpoint: a resumed run fills it again.
        init_cfg: mmengine's; the original draws every convolution from N(0, 0.02).

    ``train_step`` wants an OptimWrapperDict with the keys 'generator' and 'discriminator', as
    ``PartsOptimWrapperConstructor`` builds it. For several GPUs set
    ``model_wrapper_cfg=dict(type='MMSeparateDistributedDataParallel')``: mmengine's default wrapper
    knows one optimiser only.
    """

    def __init__(
        self,
        generator: dict,
        discriminator: dict,
        cycle_weight: float = 10.0,
        identity_weight: float = 5.0,
        pool_size: int = 50,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        data_preprocessor = data_preprocessor or dict(type='TranslationPreprocessor')
        super().__init__(data_preprocessor, init_cfg)
        # Direct children, because that is what MMSeparateDistributedDataParallel wraps.
        self.generator_AB = MODELS.build(generator)
        self.generator_BA = MODELS.build(generator)
        self.discriminator_A = MODELS.build(discriminator)
        self.discriminator_B = MODELS.build(discriminator)
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight
        self.pool_A, self.pool_B = ImagePool(pool_size), ImagePool(pool_size)

    def forward(
        self, inputs: dict[str, Tensor], data_samples: dict | None = None, mode: str = 'tensor'
    ) -> dict[str, Tensor] | list[dict]:
        """Translate ``inputs``: 'A' and 'B', each [N, 3, H, W] in [-1, 1].

        Modes: 'tensor' gives real, fake and cycled images of both domains as one dict of batches;
        'predict' the same as a list with one dict a sample, and ``data_samples`` (by domain a list
        of file names) in it as path_A and path_B; 'loss' the losses of the generators.
        """
        if mode not in MODES:
            raise ValueError(f'mode is {mode!r}, wanted one of {MODES}')
        images = self.translate(inputs)
        if mode == 'loss':
            return self.generator_losses(images)
        if mode == 'tensor':
            return images
        paths = {f'path_{domain}': names for domain, names in (data_samples or {}).items()}
        columns = {**images, **paths}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def train_step(self, data: dict, optim_wrapper) -> dict[str, Tensor]:
        """One step of both generators, then one of both discriminators; returns every loss.

        'loss' in the result is the sum over the generators; the discriminators' are beside it.
        """
        inputs = self.data_preprocessor(data, training=True)['inputs']
        with optim_wrapper['generator'].optim_context(self):
            images = self.translate(inputs)
            loss, log = self.parse_losses(self.generator_losses(images))
        optim_wrapper['generator'].update_params(loss)

        with optim_wrapper['discriminator'].optim_context(self):
            loss, discriminator_log = self.parse_losses(self.discriminator_losses(images))
        optim_wrapper['discriminator'].update_params(loss)
        return {**discriminator_log, **log}

    def translate(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """There and back again: real, fake and cycled images of both domains."""
        fake_B, fake_A = self.generator_AB(inputs['A']), self.generator_BA(inputs['B'])
        return {
            'real_A': inputs['A'],
            'fake_B': fake_B,
            'cycled_A': self.generator_BA(fake_B),
            'real_B': inputs['B'],
            'fake_A': fake_A,
            'cycled_B': self.generator_AB(fake_A),
        }

    def generator_losses(self, images: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the generators minimise; the discriminators get no gradient from it."""
        real_A, real_B = images['real_A'], images['real_B']
        losses = {
            'loss_cycle_A': self.cycle_weight * F.l1_loss(images['cycled_A'], real_A),
            'loss_cycle_B': self.cycle_weight * F.l1_loss(images['cycled_B'], real_B),
        }
        with frozen(self.discriminator_A, self.discriminator_B):
            logits_A = self.discriminator_A(images['fake_A'])
            logits_B = self.discriminator_B(images['fake_B'])
        losses['loss_gan_A'] = _least_squares(logits_A, real=True)
        losses['loss_gan_B'] = _least_squares(logits_B, real=True)
        if self.identity_weight:
            same_A, same_B = self.generator_BA(real_A), self.generator_AB(real_B)
            losses['loss_identity_A'] = self.identity_weight * F.l1_loss(same_A, real_A)
            losses['loss_identity_B'] = self.identity_weight * F.l1_loss(same_B, real_B)
        return losses

    def discriminator_losses(self, images: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the discriminators minimise; the generators get no gradient from it.

        Halved, as in the original, to let the discriminators learn at half the speed.
        """
        losses = {}
        for domain, judge, pool in (
            ('A', self.discriminator_A, self.pool_A),
            ('B', self.discriminator_B, self.pool_B),
        ):
            fake = pool.exchange(images[f'fake_{domain}'].detach())
            on_real = _least_squares(judge(images[f'real_{domain}']), real=True)
            on_fake = _least_squares(judge(fake), real=False)
            losses[f'loss_discriminator_{domain}'] = 0.5 * (on_real + on_fake)
        return losses


class ImagePool:
    """The last ``size`` generated images, of which a discriminator sees old ones too.

    Source: Shrivastava et al., arXiv 1612.07828, Sec. 2.3.
    """

    def __init__(self, size: int) -> None:
        if size < 0:
            raise ValueError(f'pool_size wants an integer >= 0, got {size}')
        self.size = size
        self.images: list[Tensor] = []

    def exchange(self, images: Tensor) -> Tensor:
        """Store ``images`` [N, C, H, W] and return as many: with even chance, each one or an old
        one whose place it takes. A pool that is not yet full returns what it is given."""
        returned = []
        for image in images:
            kept = image.clone()  # a view would keep its whole batch
            if len(self.images) < self.size:
                self.images.append(kept)
            elif self.size and torch.rand(()) < 0.5:
                place = int(torch.randint(self.size, ()))
                image, self.images[place] = self.images[place], kept
            returned.append(image)
        return torch.stack(returned)


@MODELS.register_module(force=True)
class TranslationPreprocessor(BaseDataPreprocessor):
    """Stack the uint8 RGB images of each domain and scale 0..255 to [-1, 1]."""

    def forward(self, data: dict, training: bool = False) -> dict:
        data = self.cast_data(data)
        inputs = {
            domain: torch.stack(list(images)).float() / 127.5 - 1
            for domain, images in data['inputs'].items()
        }
        return {**data, 'inputs': inputs}


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """What is computed inside gives no gradient to the parameters of ``networks``."""
    parameters = [p for net in networks for p in net.parameters() if p.requires_grad]
    try:
        for p in parameters:
            p.requires_grad_(False)
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


def _least_squares(logits: Tensor, *, real: bool) -> Tensor:
    """Mean squared distance of ``logits`` from 1 for real, 0 for generated images."""
    return F.mse_loss(logits, torch.full_like(logits, float(real)))
