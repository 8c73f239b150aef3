"""SepASPPHead differs from mmseg's head only in its pointwise convolutions."""

import pytest
import torch

pytest.importorskip('mmseg')
pytest.importorskip('mmcv._ext', reason="mmseg needs mmcv's compiled operators")
from mmcv.cnn import DepthwiseSeparableConvModule
from mmseg.models import DepthwiseSeparableASPPHead

from nc_plugins.layers import NCAffine, NCConv2d
from nc_plugins.layers.half_swap import HalfSwapError
from nc_plugins.models.sep_aspp_head import SepASPPHead

GN = dict(norm_cfg=dict(type='GN', num_groups=2))
NC = dict(conv_cfg=dict(type='NC'), norm_cfg=dict(type='NC'))


def build(cls=SepASPPHead, **slots):
    torch.manual_seed(0)
    sizes = dict(in_channels=8, channels=4, num_classes=3, c1_in_channels=6, c1_channels=2)
    return cls(**sizes, in_index=1, dilations=(1, 2), **slots)


def features():
    g = torch.Generator().manual_seed(1)
    return [torch.randn(2, *shape, generator=g) for shape in ((6, 12, 10), (8, 6, 5))]


def separable(head):
    blocks = [m for m in head.modules() if isinstance(m, DepthwiseSeparableConvModule)]
    assert len(blocks) == 3
    return blocks


def test_without_conv_cfg_it_equals_its_parent():
    ours, theirs = build(**GN), build(DepthwiseSeparableASPPHead, **GN)
    assert [type(m) for m in ours.modules()][1:] == [type(m) for m in theirs.modules()][1:]
    state = theirs.state_dict()
    assert ours.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())


def test_pointwise_convolutions_are_normalized_and_depthwise_ones_plain():
    head = build(**NC)
    for block in separable(head):
        assert type(block.pointwise_conv.conv) is NCConv2d
        assert type(block.depthwise_conv.conv) is torch.nn.Conv2d
        assert type(block.depthwise_conv.norm) is NCAffine
    plain = {name for name, m in head.named_modules() if type(m) is torch.nn.Conv2d}
    assert plain == {
        'conv_seg',
        'aspp_modules.1.depthwise_conv.conv',
        'sep_bottleneck.0.depthwise_conv.conv',
        'sep_bottleneck.1.depthwise_conv.conv',
    }


def test_its_state_dict_has_the_keys_and_shapes_of_its_parent():
    def shapes(head):
        # mmcv names a norm by its type: gn, nc
        return {k.replace('.nc.', '.gn.'): v.shape for k, v in head.state_dict().items()}

    assert shapes(build(**NC)) == shapes(build(DepthwiseSeparableASPPHead, **GN))


def test_depthwise_convolutions_can_be_normalized_too():
    head = build(**NC, depthwise_conv_cfg=dict(type='NC'))
    parent = build(DepthwiseSeparableASPPHead, **GN)
    for block, theirs in zip(separable(head), separable(parent), strict=True):
        conv, plain = block.depthwise_conv.conv, theirs.depthwise_conv.conv
        assert type(conv) is NCConv2d and block.depthwise_conv.norm.allow_plain is False
        for name in ('in_channels', 'out_channels', 'kernel_size', 'stride', 'padding', 'dilation'):
            assert getattr(conv, name) == getattr(plain, name)
        assert conv.groups == conv.in_channels and conv.bias is None


@pytest.mark.parametrize('slots', [GN, NC, {**NC, 'depthwise_conv_cfg': dict(type='NC')}])
def test_it_trains(slots):
    head = build(**slots).train()
    out = head(features())
    assert out.shape == (2, 3, 12, 10)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(2)))
    for name, p in head.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name


def test_the_parent_with_nc_is_an_error():
    with pytest.raises(HalfSwapError):
        build(DepthwiseSeparableASPPHead, **NC).train()(features())
