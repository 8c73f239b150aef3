"""CalibrateHook: a converted model starts with norms that fit the loaded weights."""

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

pytest.importorskip('mmengine')
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from toy import runner

import nc_plugins
from nc_plugins.engine.calibrate import CalibrateHook


class Images(Dataset):
    """Twenty images whose values depend on the index alone."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        image = torch.randn(3, 8, 8, generator=torch.manual_seed(int(index))) * 2 + 1
        return {'inputs': image, 'data_samples': int(index)}


@MODELS.register_module(force=True)
class CalibrationNet(BaseModel):
    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
        )

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.layers(torch.stack(list(inputs)))
        return {'loss': out.square().mean()} if mode == 'loss' else out


@pytest.fixture
def trained(tmp_path):
    """The file of a network with running statistics and with affines of both signs."""
    model = CalibrationNet()
    for norm in (model.layers[1], model.layers[4]):
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    for index in range(50):
        model([Images()[index]['inputs']] * 2)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'trained.pth')
    return tmp_path / 'trained.pth'


def final_weights(folder, hook, **more):
    """The weights after a training with a learning rate of 0."""
    model = dict(type='NCModel', model=dict(type='CalibrationNet'))
    settings = dict(
        model=model,
        cfg=dict(model=model, load_from=more.get('load_from')),
        train_dataloader=dict(
            dataset=Images(), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=True)
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        val_dataloader=None,
        val_evaluator=None,
        val_cfg=None,
    )
    run = runner(folder, [hook] if hook else [], **{**settings, **more})
    run.train()
    return run.model.state_dict()


def test_the_training_starts_from_the_calibrated_weights(trained, tmp_path):
    expected = CalibrationNet()
    expected.load_state_dict(torch.load(trained)['state_dict'])
    spread = [0, 2, 5, 7, 10, 12, 15, 17]  # 8 of 20
    images = torch.stack([Images()[index]['inputs'] for index in spread])
    nc_plugins.convert(expected.layers, calibrate=images)
    weights = final_weights(tmp_path, CalibrateHook(images=8), load_from=str(trained))
    torch.testing.assert_close(dict(weights), dict(expected.state_dict()), rtol=1e-4, atol=1e-5)
    plain = final_weights(tmp_path / 'plain', None, load_from=str(trained))
    assert not torch.allclose(plain['layers.1.weight'], weights['layers.1.weight'], rtol=0.1)


def test_a_resumed_training_keeps_its_weights(trained, tmp_path):
    folder = tmp_path / 'work'
    final_weights(folder, CalibrateHook(images=8), load_from=str(trained))
    content = torch.load(folder / 'epoch_1.pth', weights_only=False)
    content['state_dict']['layers.1.weight'].fill_(5.0)
    torch.save(content, folder / 'epoch_1.pth')
    more = dict(train_cfg=dict(by_epoch=True, max_epochs=2), resume=True)
    weights = final_weights(folder, CalibrateHook(images=8), **more)
    assert weights['layers.1.weight'].tolist() == [5.0] * 4
