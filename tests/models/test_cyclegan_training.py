"""CycleGAN: whole trainings, resumed, repeated and with two processes."""

import pytest

pytest.importorskip('mmcv')
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import MMSeparateDistributedDataParallel
from mmengine.runner import Runner, get_state_dict, load_checkpoint
from PIL import Image

from nc_plugins.datasets import unpaired  # noqa: F401 (registers the data set)
from nc_plugins.engine import translation, translation_metrics  # noqa: F401
from nc_plugins.engine.optim import PartsOptimWrapperConstructor

from .cyclegan import OPTIM, batch, build, tiny


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
