"""RPNHeadWithSlots equals mmdet's RPNHead unless conv_cfg or norm_cfg is given."""

import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmcv._ext')
from mmdet.models import RPNHead
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn

import nc_plugins  # noqa: F401
from nc_plugins.layers import HalfSwapError, NCAffine, NCConv2d
from nc_plugins.models.rpn_head import RPNHeadWithSlots

NC = dict(type='NC')


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


def head(cls=RPNHeadWithSlots, **kwargs):
    torch.manual_seed(0)
    model = cls(in_channels=8, feat_channels=16, **kwargs)
    model.init_weights()
    return model.train()


def features():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 8, size, size + 3, generator=generator) for size in (9, 5)]


@pytest.mark.parametrize('num_convs', [1, 3])
def test_without_slots_it_equals_mmdets_head(num_convs):
    theirs = head(RPNHead, num_convs=num_convs)
    ours = head(num_convs=num_convs)
    if num_convs == 1:
        assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
    for our, their in zip(ours(features()), theirs(features()), strict=True):
        for a, b in zip(our, their, strict=True):
            assert torch.equal(a, b)


def test_an_nc_convolution_keeps_its_bias_and_the_predictors_stay_plain():
    model = head(conv_cfg=NC)
    assert isinstance(model.rpn_conv, NCConv2d)
    assert model.rpn_conv.bias is not None
    assert type(model.rpn_cls) is type(model.rpn_reg) is nn.Conv2d
    # Initialised by the rule for 'Conv2d'.
    assert 0.008 < model.rpn_conv.weight.std().item() < 0.012

    # NC standardises its input, so the output does not depend on the scale of the features.
    for cls, kwargs, same in ((RPNHeadWithSlots, dict(conv_cfg=NC), True), (RPNHead, {}, False)):
        model = head(cls, **kwargs)
        (scores, *_), _ = model(features())
        (scaled, *_), _ = model([1000 * feature for feature in features()])
        assert torch.allclose(scores, scaled, atol=1e-5) is same


@pytest.mark.parametrize('num_convs', [1, 2])
def test_both_slots(num_convs):
    model = head(conv_cfg=NC, norm_cfg=NC, num_convs=num_convs)
    kinds = [type(m) for m in model.modules() if isinstance(m, (NCConv2d, NCAffine))]
    assert kinds == [NCConv2d, NCAffine] * num_convs
    assert all(conv.bias is None for conv in model.modules() if isinstance(conv, NCConv2d))
    scores, deltas = model(features())
    outputs = [*scores, *deltas]
    torch.autograd.backward(outputs, [torch.randn_like(out) for out in outputs])
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_norm_cfg_without_conv_cfg_is_an_error():
    with pytest.raises(HalfSwapError, match=r'comes after .* normalises nothing'):
        head(norm_cfg=NC)(features())


def test_mmdets_registry_builds_it():
    model = MODELS.build(dict(type='RPNHeadWithSlots', in_channels=8, conv_cfg=NC))
    assert isinstance(model.rpn_conv, NCConv2d)
    with pytest.raises(KeyError, match='Cannot find'):  # the message of mmcv
        MODELS.build(dict(type='RPNHeadWithSlots', in_channels=8, conv_cfg=dict(type='NCX')))
