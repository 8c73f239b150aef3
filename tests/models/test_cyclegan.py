"""CycleGAN: losses, gradients, the image pool and training steps."""

import copy
import math
from pathlib import Path

import pytest

pytest.importorskip('mmcv')
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from nc_plugins.engine.optim import PartsOptimWrapperConstructor
from nc_plugins.models.cyclegan import ImagePool, TranslationPreprocessor, frozen

from .cyclegan import OPTIM, SLOTS, batch, build, tiny


def test_init_cfg_initialises_every_convolution():
    init = dict(type='Normal', layer=['Conv2d', 'ConvTranspose2d'], std=7.0)
    for kind in ('in', 'nc'):
        model = build(kind, init_cfg=init)
        model.init_weights()
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                assert 4 < module.weight.std() < 10


def test_the_initialisation_for_nc_gives_outputs_of_unit_variance():
    config = 'configs/cyclegan/cyclegan_resnet9_nc_1xb1-200e_horse2zebra.py'
    path = Path(__file__).parents[2] / config
    init = Config.fromfile(path, import_custom_modules=False).model.init_cfg
    cfg = tiny('nc', init_cfg=init)
    cfg['generator'].update(base_channels=32, num_blocks=2)
    cfg['discriminator'].update(base_channels=32)
    model = MODELS.build(cfg)
    model.init_weights()
    stds = {'NCConv2d': [], 'NCConvTranspose2d': []}
    for module in model.generator_AB.modules():
        if type(module).__name__ in stds:
            module.register_forward_hook(
                lambda m, args, out: stds[type(m).__name__].append(out.std().item())
            )
    model.generator_AB(torch.rand(1, 3, 32, 32) * 2 - 1)
    assert [len(found) for found in stds.values()] == [7, 2]
    assert all(0.8 < std < 1.2 for std in stds['NCConv2d']), stds
    # A stride of 2 leaves a quarter of the taps on average, so the variance is about 1/2.
    assert all(0.6 < std < 0.9 for std in stds['NCConvTranspose2d']), stds
    plain = [m for m in model.modules() if type(m) is nn.Conv2d]
    assert len(plain) == 6
    for module in plain:
        assert 0.015 < module.weight.std() < 0.025


class Linear(nn.Module):
    """scale * image + shift, with a trainable scale."""

    def __init__(self, scale, shift=0.0):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(scale)), shift

    def forward(self, x):
        return self.scale * x + self.shift


def linear_model(**kwargs):
    model = build(**kwargs)
    model.generator_AB, model.generator_BA = Linear(0.5), Linear(1.0, 0.25)
    model.discriminator_A, model.discriminator_B = Linear(2.0), Linear(3.0)
    return model


def test_the_losses_are_those_of_the_paper():
    model = linear_model()
    a, b = torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), -0.5)
    # a -> 0.25 -> 0.5 (cycle error 0), b -> -0.25 -> -0.125 (0.375)
    losses = model({'A': a, 'B': b}, mode='loss')
    expected = {
        'loss_cycle_A': 0.0,
        'loss_cycle_B': 10 * 0.375,
        'loss_gan_A': (2 * -0.25 - 1) ** 2,
        'loss_gan_B': (3 * 0.25 - 1) ** 2,
        'loss_identity_A': 5 * 0.25,
        'loss_identity_B': 5 * 0.25,
    }
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(expected)
    judged = model.discriminator_losses(model.translate({'A': a, 'B': b}))
    assert {k: v.item() for k, v in judged.items()} == pytest.approx(
        {
            'loss_discriminator_A': 0.5 * ((2 * 0.5 - 1) ** 2 + (2 * -0.25) ** 2),
            'loss_discriminator_B': 0.5 * ((3 * -0.5 - 1) ** 2 + (3 * 0.25) ** 2),
        }
    )


def test_weights_scale_the_losses_and_weight_0_skips_the_identity_loss():
    a, b = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    one = linear_model(cycle_weight=1.0, identity_weight=0.0)({'A': a, 'B': b}, mode='loss')
    ten = linear_model()({'A': a, 'B': b}, mode='loss')
    assert ten['loss_cycle_B'].item() == pytest.approx(10 * one['loss_cycle_B'].item())
    assert not any('identity' in key for key in one)


def test_each_loss_gives_gradients_to_its_own_networks_only():
    model = linear_model()
    images = model.translate({'A': torch.rand(1, 3, 4, 4), 'B': torch.rand(1, 3, 4, 4)})
    sum(model.generator_losses(images).values()).backward()
    assert model.generator_AB.scale.grad is not None
    assert model.generator_BA.scale.grad is not None
    assert model.discriminator_A.scale.grad is None
    assert model.discriminator_A.scale.requires_grad  # restored
    model.zero_grad()
    sum(model.discriminator_losses(images).values()).backward()
    assert model.discriminator_A.scale.grad is not None
    assert model.discriminator_B.scale.grad is not None
    assert model.generator_AB.scale.grad is None


def test_frozen_restores_requires_grad_even_after_an_error():
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    net[0].bias.requires_grad_(False)
    before = [p.requires_grad for p in net.parameters()]
    with pytest.raises(RuntimeError, match='on purpose'), frozen(net):
        assert not any(p.requires_grad for p in net.parameters())
        raise RuntimeError('on purpose')
    assert [p.requires_grad for p in net.parameters()] == before


def test_modes():
    model, data = build(), TranslationPreprocessor()(batch())
    images = model(data['inputs'], mode='tensor')
    assert set(images) == {f'{w}_{d}' for w in ('real', 'fake', 'cycled') for d in 'AB'}
    rows = model(**data, mode='predict')
    assert [row['path_A'] for row in rows] == ['a0', 'a1']
    torch.testing.assert_close(rows[1]['fake_B'], images['fake_B'][1])
    torch.testing.assert_close(
        rows[0]['cycled_A'], model.generator_BA(model.generator_AB(data['inputs']['A']))[0]
    )
    with pytest.raises(ValueError, match=r"mode must be one of .*, got 'train'"):
        model(data['inputs'], mode='train')


def test_pixels_become_minus_one_to_one():
    ramp = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1)
    out = TranslationPreprocessor()({'inputs': {'A': [ramp], 'B': [ramp, ramp]}})['inputs']
    assert out['A'].flatten().tolist() == pytest.approx([-1, -0.6, 1])
    assert out['B'].shape == (2, 3, 1, 1)


def test_a_pool_that_is_not_full_returns_the_given_images():
    pool = ImagePool(3)
    images = torch.randn(3, 1, 2, 2)
    torch.testing.assert_close(pool.exchange(images), images)
    assert len(pool.images) == 3
    # Copies: a view would keep the whole batch in memory.
    assert all(image.untyped_storage().nbytes() == 16 for image in pool.images)


def test_a_full_pool_returns_old_images_half_of_the_time():
    torch.manual_seed(0)
    pool = ImagePool(5)
    given = torch.arange(400.0).view(-1, 1, 1, 1)
    returned = torch.cat([pool.exchange(image[None]) for image in given]).flatten()
    old = (returned != given.flatten())[5:].float().mean().item()
    assert 0.4 < old < 0.6
    assert len(pool.images) == 5
    # Every image was returned or is still in the pool.
    stored = {image.item() for image in pool.images}
    assert set(returned.tolist()) | stored == set(range(400))


def test_a_pool_of_size_0_and_a_negative_size():
    pool = ImagePool(0)
    images = torch.randn(4, 1, 2, 2)
    torch.testing.assert_close(pool.exchange(images), images)
    with pytest.raises(ValueError, match='pool_size'):
        ImagePool(-1)


@pytest.mark.parametrize('kind', SLOTS)
def test_a_step_trains_all_four_networks_with_finite_gradients(kind):
    model = build(kind)
    optim_wrapper = PartsOptimWrapperConstructor(OPTIM)(model)
    before = copy.deepcopy(model.state_dict())
    log = model.train_step(batch(), optim_wrapper)
    assert sorted(log) == sorted(
        ['loss']
        + [f'loss_{k}_{d}' for k in ('cycle', 'gan', 'identity', 'discriminator') for d in 'AB']
    )
    assert all(math.isfinite(v) for v in log.values())
    parts = [v for k, v in log.items() if k != 'loss' and 'discriminator' not in k]
    assert log['loss'].item() == pytest.approx(sum(v.item() for v in parts), rel=1e-5)
    for name, child in model.named_children():
        if list(child.parameters()):
            after = child.state_dict()
            changed = [k for k in after if not torch.equal(after[k], before[f'{name}.{k}'])]
            assert changed, name
            assert all(torch.isfinite(v).all() for v in after.values())
