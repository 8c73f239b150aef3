"""CycleGAN (Zhu et al., arXiv 1703.10593) on mmengine."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from . import cyclegan_networks  # noqa: F401 (registers the networks)

MODES = ('tensor', 'predict', 'loss')


# force=True: importing this file again under another name is not an error.
@MODELS.register_module(force=True)
class CycleGAN(BaseModel):
    """Translate images from domain A to domain B and back, learned from unpaired images.

    The generator of each direction minimises three losses: the least-squares GAN loss of the
    discriminator of its target domain, the L1 cycle loss between an image and its translation there
    and back, and the L1 identity loss between an image of the target domain and its translation.

    Args:
        generator: Config of the networks that translate, one for each direction.
        discriminator: Config of the networks that judge, one for each domain.
        cycle_weight: Weight of the cycle losses. 10 in the paper.
        identity_weight: Weight of the identity losses. 5 in the paper; 0 skips them.
        pool_size: Number of generated images of each domain in the :class:`ImagePool` of its
            discriminator. 50 in the paper. ``ImagePoolHook`` saves them in checkpoints.
        data_preprocessor: Config of the preprocessor. Default: :class:`TranslationPreprocessor`.
        init_cfg: mmengine's initialisation. The paper draws weights from N(0, 0.02^2).

    :meth:`train_step` takes an ``OptimWrapperDict`` with the keys ``'generator'`` and
    ``'discriminator'``, which ``PartsOptimWrapperConstructor`` builds. For several GPUs set
    ``model_wrapper_cfg=dict(type='MMSeparateDistributedDataParallel')``, because mmengine's default
    wrapper supports only one optimiser.
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
        # MMSeparateDistributedDataParallel wraps direct children only.
        self.generator_AB = MODELS.build(generator)
        self.generator_BA = MODELS.build(generator)
        self.discriminator_A = MODELS.build(discriminator)
        self.discriminator_B = MODELS.build(discriminator)
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight
        self.pool_A, self.pool_B = ImagePool(pool_size), ImagePool(pool_size)

    def forward(
        self, inputs: dict[str, Tensor], data_samples: dict | None = None, mode: str = 'tensor'
    ) -> dict[str, Tensor] | list[dict]:
        """Translate a batch of each domain.

        Args:
            inputs: Batches ``'A'`` and ``'B'``, each [N, 3, H, W] in [-1, 1].
            data_samples: For each domain the list of the file names.
            mode: One of ``'tensor'``, ``'predict'`` and ``'loss'``.

        Returns:
            ``'tensor'``: the batches of :meth:`translate`. ``'predict'``: a list with one dict per
            sample, which contains the same images and the file names as ``path_A`` and ``path_B``.
            ``'loss'``: the losses of the generators.
        """
        if mode not in MODES:
            raise ValueError(f'mode must be one of {MODES}, got {mode!r}')
        images = self.translate(inputs)
        if mode == 'loss':
            return self.generator_losses(images)
        if mode == 'tensor':
            return images
        paths = {f'path_{domain}': names for domain, names in (data_samples or {}).items()}
        columns = {**images, **paths}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def train_step(self, data: dict, optim_wrapper) -> dict[str, Tensor]:
        """Update both generators, then both discriminators.

        Returns:
            Every loss by name. ``'loss'`` is the sum of the losses of the generators.
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
        """Translate each domain to the other one and back.

        Returns:
            The batches ``real_A``, ``fake_B`` = G_AB(real_A), ``cycled_A`` = G_BA(fake_B), and the
            same with A and B exchanged.
        """
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
        """The losses of the generators. They give the discriminators no gradients."""
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
        """The losses of the discriminators. They give the generators no gradients.

        As in the paper they are halved, which slows down the discriminators.
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
    """Generated images from earlier iterations.

    A discriminator that also trains on these keeps rejecting what a generator produced earlier
    (Shrivastava et al., arXiv 1612.07828, Sec. 2.3).

    Args:
        size: The maximum number of stored images.
    """

    def __init__(self, size: int) -> None:
        if size < 0:
            raise ValueError(f'pool_size must be at least 0, got {size}')
        self.size = size
        self.images: list[Tensor] = []

    def exchange(self, images: Tensor) -> Tensor:
        """Exchange images for stored ones.

        Each image is returned or, with probability 0.5 once the pool is full, replaces a random
        stored image that is returned instead.

        Shapes: images [N, C, H, W] -> [N, C, H, W].
        """
        returned = []
        for image in images:
            kept = image.clone()  # a view would keep the whole batch in memory
            if len(self.images) < self.size:
                self.images.append(kept)
            elif self.size and torch.rand(()) < 0.5:
                place = int(torch.randint(self.size, ()))
                image, self.images[place] = self.images[place].to(image.device), kept
            returned.append(image)
        return torch.stack(returned)


@MODELS.register_module(force=True)
class TranslationPreprocessor(BaseDataPreprocessor):
    """Stack the uint8 RGB images of each domain and scale them from 0..255 to [-1, 1]."""

    def forward(self, data: dict, training: bool = False) -> dict:
        data = self.cast_data(data)
        inputs = {
            domain: torch.stack(list(images)).float() / 127.5 - 1
            for domain, images in data['inputs'].items()
        }
        return {**data, 'inputs': inputs}


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Disable gradients of the parameters of ``networks`` in a ``with`` block."""
    parameters = [p for net in networks for p in net.parameters() if p.requires_grad]
    try:
        for p in parameters:
            p.requires_grad_(False)
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


def _least_squares(logits: Tensor, *, real: bool) -> Tensor:
    """The least-squares GAN loss: the target is 1 for real and 0 for generated images."""
    return F.mse_loss(logits, torch.full_like(logits, float(real)))
