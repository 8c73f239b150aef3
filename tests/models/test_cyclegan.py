"""CycleGAN: losses, gradients, the image pool, training steps and whole trainings."""

import copy
import math
from pathlib import Path

import pytest

pytest.importorskip('mmcv')
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import MMSeparateDistributedDataParallel
from mmengine.registry import MODELS
from mmengine.runner import Runner, get_state_dict, load_checkpoint
from PIL import Image
from torch import nn

from nc_plugins.datasets import unpaired  # noqa: F401 (registers the data set)
from nc_plugins.engine import translation, translation_metrics  # noqa: F401
from nc_plugins.engine.optim import PartsOptimWrapperConstructor
from nc_plugins.models.cyclegan import ImagePool, TranslationPreprocessor, frozen

IN = dict(norm_cfg=dict(type='IN', affine=False))
NC = dict(conv_cfg=dict(type='NC'), norm_cfg=dict(type='NC'))
SLOTS = {
    'in': IN,
    'nc': NC,
    'pn': dict(norm_cfg=dict(type='PN')),
    'gn': dict(norm_cfg=dict(type='GN', num_groups=2)),
}
ADAM = dict(type='Adam', lr=2e-4, betas=(0.5, 0.999))
OPTIM = dict(generator=dict(optimizer=ADAM), discriminator=dict(optimizer=ADAM))


def tiny(kind='in', **kwargs):
    slots = SLOTS[kind]
    upsample = dict(type='NCDeconv' if kind == 'nc' else 'deconv')
    generator = dict(
        type='ResNetGenerator', num_blocks=1, base_channels=4, upsample_cfg=upsample, **slots
    )
    discriminator = dict(type='PatchDiscriminator', num_layers=1, base_channels=4, **slots)
    return dict(type='CycleGAN', generator=generator, discriminator=discriminator, **kwargs)


def build(kind='in', **kwargs):
    torch.manual_seed(0)
    return MODELS.build(tiny(kind, **kwargs))


def batch(size=16, n=2):
    torch.manual_seed(1)
    image = lambda: torch.randint(0, 256, (3, size, size), dtype=torch.uint8)  # noqa: E731
    return {
        'inputs': {'A': [image() for _ in range(n)], 'B': [image() for _ in range(n)]},
        'data_samples': {'A': [f'a{i}' for i in range(n)], 'B': [f'b{i}' for i in range(n)]},
    }


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


def config(root, work_dir, epochs=4):
    dataset = dict(type='UnpairedImages', data_root=str(root), load_size=18, crop_size=16)
    return Config(
        dict(
            model=tiny('nc'),
            work_dir=str(work_dir),
            train_dataloader=dict(
                batch_size=1,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=True),
                dataset=dict(dataset, folder_A='trainA', folder_B='trainB'),
            ),
            val_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(dataset, folder_A='trainA', folder_B='trainB', test_mode=True),
            ),
            val_evaluator=dict(type='CycleL1'),
            train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
            val_cfg=dict(),
            optim_wrapper=dict(constructor='PartsOptimWrapperConstructor', **OPTIM),
            param_scheduler=dict(
                type='LinearLR', begin=1, end=4, start_factor=1.0, end_factor=1 / 3, by_epoch=True
            ),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(type='CheckpointHook', interval=1),
                visualization=dict(type='TranslationVisualizationHook', rows=2),
            ),
            randomness=dict(seed=3),
            default_scope='mmengine',
            experiment_name=f'{work_dir.name}_{epochs}',
            log_level='WARNING',
        )
    )


@pytest.fixture
def data(tmp_path):
    root = tmp_path / 'data'
    for folder, n in (('trainA', 2), ('trainB', 1)):
        (root / folder).mkdir(parents=True)
        for i in range(n):
            Image.new('RGB', (20, 20), (40 * i, 90, 200)).save(root / folder / f'{i}.png')
    return root


class RecordLearningRates(Hook):
    def __init__(self):
        self.rates = []

    def before_train_epoch(self, runner):
        self.rates.append([rates[0] for rates in runner.optim_wrapper.get_lr().values()])


def test_both_learning_rates_decay_and_a_resumed_training_continues(data, tmp_path):
    whole = Runner.from_cfg(config(data, tmp_path / 'whole'))
    hook = RecordLearningRates()
    whole.register_hook(hook)
    whole.train()
    # Two epochs at lr, then two in equal steps towards 0.
    assert hook.rates == [pytest.approx([2e-4 * f] * 2) for f in (1, 1, 2 / 3, 1 / 3)]
    samples = sorted(p.name for p in (tmp_path / 'whole' / 'samples').iterdir())
    assert samples == [f'epoch_{n:03d}.png' for n in (1, 2, 3, 4)]

    cfg = config(data, tmp_path / 'resumed')
    cfg.load_from, cfg.resume = str(tmp_path / 'whole' / 'epoch_3.pth'), True
    resumed = Runner.from_cfg(cfg)
    hook = RecordLearningRates()
    resumed.register_hook(hook)
    resumed.train()
    assert hook.rates == [pytest.approx([2e-4 / 3] * 2)]
    for part in ('generator', 'discriminator'):
        states = [r.optim_wrapper[part].optimizer.state_dict()['state'] for r in (whole, resumed)]
        assert [s['step'].item() for s in states[1].values()] == [8] * len(states[0])


def test_a_seed_repeats_a_training_and_a_checkpoint_restores_the_model(data, tmp_path):
    runs = []
    for name in ('one', 'two'):
        runs.append(Runner.from_cfg(config(data, tmp_path / name, epochs=1)))
        runs[-1].train()
    one, two = (run.model.state_dict() for run in runs)
    assert all(torch.equal(one[key], two[key]) for key in one)
    other = build('nc')
    load_checkpoint(other, str(tmp_path / 'one' / 'epoch_1.pth'), strict=True)
    x = {domain: torch.rand(1, 3, 16, 16) for domain in 'AB'}
    torch.testing.assert_close(other.eval()(x), runs[0].model.eval()(x))


def train_as_rank(rank, folder):
    """Train three steps on half of the batch and save the weights in ``folder``."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    model = MMSeparateDistributedDataParallel(build('nc'))
    optim_wrapper = PartsOptimWrapperConstructor(OPTIM)(model)
    whole = batch(n=4)
    half = {
        key: {domain: values[2 * rank : 2 * rank + 2] for domain, values in by_domain.items()}
        for key, by_domain in whole.items()
    }
    for _ in range(3):
        model.train_step(half, optim_wrapper)
    assert len(model.val_step(half)) == 2
    torch.save(get_state_dict(model.module), f'{folder}/rank{rank}.pth')
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_train_as_one_does_on_the_whole_batch(tmp_path):
    torch.multiprocessing.spawn(train_as_rank, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f'rank{rank}.pth') for rank in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    single, start = build('nc'), build('nc').state_dict()
    optim_wrapper = PartsOptimWrapperConstructor(OPTIM)(single)
    for _ in range(3):
        single.train_step(batch(n=4), optim_wrapper)
    assert single.state_dict().keys() == first.keys()
    for key, value in single.state_dict().items():
        change = (value - start[key]).norm()
        assert (first[key] - value).norm() <= 0.02 * change, key
