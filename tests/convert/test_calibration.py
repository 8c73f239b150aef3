"""Calibration matches the outputs of the new norms to those of the old ones."""

import pytest
import torch
from torch import nn

import nc_plugins
from nc_plugins.convert.kinds import norm_kind

from .networks import Residual, convnet

BATCH = torch.randn(16, 3, 8, 8, generator=torch.manual_seed(1)) * 2 + 1


def trained(build=convnet):
    """A network with running statistics and with affines of both signs."""
    model = build()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    for _ in range(50):
        model(BATCH)
    return model.eval()


def norm_outputs(model):
    found = []
    norms = [m for m in model.modules() if norm_kind(m)]
    handles = [m.register_forward_hook(lambda _, __, out: found.append(out)) for m in norms]
    with torch.no_grad():
        model(BATCH)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize('to', ['NC', 'NCWS', 'GN', 'IN', 'PN'])
@pytest.mark.parametrize('build', [convnet, Residual])
def test_every_norm_has_the_mean_and_deviation_of_the_old_one(build, to):
    model = trained(build)
    old = norm_outputs(model)
    _, report = nc_plugins.convert(model, to, calibrate=BATCH)
    new = norm_outputs(model)
    assert len(old) == len(new)
    for before, after in zip(old, new, strict=True):
        for statistic in (torch.mean, torch.std):
            ours, wanted = statistic(after, (0, 2, 3)), statistic(before, (0, 2, 3))
            torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-4)
    assert report.error_after < report.error_before
    assert f'after calibration {report.error_after:.3g}' in report.summary()


def test_several_batches_give_the_statistics_of_all():
    whole, parts = trained(), trained()
    parts.load_state_dict(whole.state_dict())
    _, one = nc_plugins.convert(whole, calibrate=BATCH)
    labels = torch.zeros(8)
    _, two = nc_plugins.convert(parts, calibrate=[(half, labels) for half in BATCH.split(8)])
    # The first norm has the same input in both; those behind it saw earlier affines.
    torch.testing.assert_close(parts[1].weight, whole[1].weight)
    torch.testing.assert_close(parts[1].bias, whole[1].bias)
    assert two.error_after == pytest.approx(one.error_after, rel=0.2)


def test_modes_buffers_and_parameters_stay():
    model = trained().train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    parameters = list(model.parameters())
    nc_plugins.convert(model, calibrate=BATCH)
    assert [module.training for module in model.modules()] == modes
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_batch_of_keyword_arguments():
    class Keywords(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = trained()

        def forward(self, *, image):
            return {'out': self.net(image)}

    _, report = nc_plugins.convert(Keywords(), calibrate={'image': BATCH})
    assert report.error_after < report.error_before


def test_wrong_calibrations():
    with pytest.raises(ValueError, match="calibrate does not set running statistics, which to='BN"):
        nc_plugins.convert(convnet(), 'BN', calibrate=BATCH)
    with pytest.raises(ValueError, match='calibrate has no batches'):
        nc_plugins.convert(convnet(), calibrate=[])
