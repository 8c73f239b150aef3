"""NC models under the ``compile`` option of mmengine's Runner."""

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import nn
from torch._dynamo.utils import counters

pytest.importorskip('mmengine')
pytest.importorskip('mmcv')
from mmcv.cnn import ConvModule
from mmengine.model import BaseModel
from mmengine.runner import Runner

import nc_plugins  # noqa: F401  registers

NC = {'conv_cfg': {'type': 'NC'}, 'norm_cfg': {'type': 'NC'}}
GN = {'norm_cfg': {'type': 'GN', 'num_groups': 2}}
STEPS = 3


class Classifier(BaseModel):
    def __init__(self, options):
        super().__init__()
        self.body = ConvModule(3, 4, 3, padding=1, **options)
        self.head = nn.Linear(4, 3)

    def forward(self, image, label, mode):
        logits = self.head(self.body(image).mean((2, 3)))
        return {'loss': F.cross_entropy(logits, label)} if mode == 'loss' else logits


@pytest.fixture
def train(tmp_path):
    """Runs a training and returns its losses and its graph breaks {reason: count}."""
    samples = [
        {'image': torch.randn(3, 6, 6), 'label': torch.tensor(i % 3)} for i in range(2 * STEPS)
    ]
    runs = []

    def run(options, compile):
        torch._dynamo.reset()
        counters.clear()
        torch.manual_seed(0)
        runs.append(None)
        runner = Runner(
            Classifier(options),
            str(tmp_path / str(len(runs))),
            train_dataloader={
                'batch_size': 2,
                'dataset': samples,
                'sampler': {'type': 'DefaultSampler', 'shuffle': False},
                'collate_fn': {'type': 'default_collate'},
            },
            train_cfg={'by_epoch': False, 'max_iters': STEPS},
            optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
            default_hooks={'checkpoint': None, 'logger': {'type': 'LoggerHook', 'interval': 1}},
            randomness={'seed': 0},
            experiment_name=f'{tmp_path.name}-{len(runs)}',
            cfg={'compile': compile},
            log_level='WARNING',
        )
        runner.train()
        losses = runner.message_hub.get_scalar('train/loss').data[0]
        return [float(loss) for loss in losses], dict(counters['graph_break'])

    yield run
    torch._dynamo.reset()


@pytest.mark.slow
def test_the_runner_compiles_nc_as_it_compiles_gn(train):
    """mmengine compiles ``train_step``, whose backward and optimizer step break the graph."""
    options = {'backend': 'aot_eager'}
    eager, _ = train(NC, False)
    losses, breaks = train(NC, options)
    _, usual = train(GN, options)
    assert losses == pytest.approx(eager, rel=1e-5) and len(set(losses)) == STEPS
    assert breaks == usual
    assert all('backward' in reason or 'User-inserted' in reason for reason in breaks)
