"""The compared systems: same weights, same parameters, other layers."""

import pytest
import systems
import torch
from cases import GROUPS, Conv
from systems import Options, System
from torch import nn

from nc_plugins.layers import NCAffine, NCConv2d, split_affines

CIFAR = GROUPS['models'][0]
PAIRS = ('nc-pair', 'nc-split')
SMALL = Conv('tiny', 2, 6, 8, 3, 9, 7, count=1, padding=1)


@pytest.mark.parametrize('name', [n for n in systems.SYSTEMS if n not in ('conv', 'definition')])
def test_models_differ_in_their_layers_only(name):
    """Every convolution and norm is replaced, and the number of parameters stays."""
    network = systems.model(name, CIFAR)
    assert not [m for m in network.modules() if type(m) is nn.BatchNorm2d and name != 'conv+bn']
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [isinstance(c, NCConv2d) for c in convs] == 20 * [systems.claims_nc(name)]
    inside = {child for conv in convs for child in conv.modules()}  # the layer's own affine
    norms = [m for m in network.modules() if isinstance(m, nn.GroupNorm | nn.BatchNorm2d)]
    norms = [m for m in norms if m not in inside]
    own = systems.claims_nc(name) and name not in PAIRS
    assert len(norms) == (0 if own else 20)
    baseline = systems.model('conv+gn', CIFAR)
    count = [sum(p.numel() for p in m.parameters()) for m in (network, baseline)]
    assert count[0] == count[1]


@pytest.mark.parametrize('name', systems.SYSTEMS)
def test_all_systems_start_from_the_same_weight(name):
    torch.manual_seed(0)
    block = systems.layer(name, SMALL)
    torch.manual_seed(0)
    torch.testing.assert_close(block[0].weight, systems.layer('conv', SMALL)[0].weight)
    assert (block[0].bias is None) == (not systems.claims_nc(name) or name in PAIRS)
    if name in PAIRS:
        assert isinstance(block[1], NCAffine)


def test_group_norm_where_32_does_not_divide():
    assert systems.layer('conv+gn', SMALL)[1].num_groups == 8


def test_a_backend_that_cannot_run_is_left_out(monkeypatch):
    def refusing(conv):
        class Refusing(nn.Module):
            def forward(self, x):
                raise ValueError("backend 'x' cannot run here: no such device")

        return Refusing(), nn.Identity()

    monkeypatch.setitem(systems.SYSTEMS, 'nc-x', System(refusing))
    assert systems.systems_of(SMALL, ['nc', 'nc-x'], Options()) == ['nc']
    assert systems.systems_of(CIFAR, ['nc', 'nc-x', 'conv'], Options()) == ['nc']


def test_other_errors_are_raised(monkeypatch):
    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError('shapes do not fit')

    monkeypatch.setitem(systems.SYSTEMS, 'nc-x', System(lambda conv: (Broken(), nn.Identity())))
    with pytest.raises(ValueError, match='do not fit'):
        systems.systems_of(SMALL, ['nc-x'], Options())


def test_convws_has_no_transposed_layer_and_huge_im2col_is_left_out():
    up = next(conv for conv in GROUPS['cyclegan'] if conv.transposed)
    assert 'convws+gn' not in systems.systems_of(up, ['convws+gn', 'conv'], Options())
    huge = next(conv for conv in GROUPS['mask-rcnn'] if conv.patches > 2**28)
    assert systems.systems_of(huge, ['definition', 'conv'], Options()) == ['conv']


@pytest.mark.parametrize('layout', ['nchw', 'channels_last'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_all_systems_run_a_step(layout, dtype):
    options = Options(layout=layout, dtype=dtype)
    names = systems.systems_of(SMALL, list(systems.SYSTEMS), options)
    assert {
        'nc',
        *PAIRS,
        'nc-aten-deployed',
        'definition',
        'conv',
        'conv+gn',
        'conv+bn',
        'conv+pn',
    } <= {*names}
    assert ('convws+gn' in names) <= (layout == 'nchw')
    x = systems.images(SMALL, options)
    for name in names:
        job = systems.work(name, SMALL, options, x)
        if not systems.trains(name):
            continue
        job.finish(job.forward())
        assert x.grad is not None
        job.clear()


def test_the_stem_needs_no_gradient_and_stays_in_float32():
    options = Options(dtype='bfloat16', layout='channels_last')
    stem = GROUPS['resnet18-cifar'][0]
    image, inner = systems.images(stem, options), systems.images(SMALL, options)
    assert (image.requires_grad, image.dtype) == (False, torch.float32)
    assert (inner.requires_grad, inner.dtype) == (True, torch.bfloat16)
    assert inner.is_contiguous(memory_format=torch.channels_last)


def test_the_pair_is_joined_and_the_split_pair_is_not():
    for case in (SMALL, CIFAR):
        x = systems.images(case, Options())
        pair = systems.work('nc-pair', case, Options(), x).module
        split = systems.work('nc-split', case, Options(), x).module
        count = sum(isinstance(module, NCAffine) for module in pair.modules())
        assert split_affines(pair) == count > 0
        assert split_affines(split) == 0


@pytest.mark.parametrize('name', [n for n in systems.SYSTEMS if not systems.trains(n)])
def test_a_deployed_model_computes_the_same(name):
    """The output equals that of the model before deployment, to float32 rounding."""
    x = systems.images(CIFAR, Options())
    modules = [
        systems.work(n, CIFAR, Options(), x).module.eval()
        for n in (name, name.removesuffix('-deployed'))
    ]
    with torch.no_grad():
        deployed, trained = (module(x) for module in modules)
    torch.testing.assert_close(deployed, trained, rtol=1e-4, atol=1e-4 * trained.abs().max().item())
