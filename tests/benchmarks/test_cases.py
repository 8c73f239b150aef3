"""The listed shapes against the convolutions that the networks run, on meta tensors."""

from collections import Counter

import pytest
import systems
import torch
from cases import GROUPS, Conv, Model
from torch import nn
from torchvision.models import resnet50

MODELS = [case for group in GROUPS.values() for case in group if isinstance(case, Model)]


def listed(convs) -> Counter:
    shapes = Counter()
    for c in convs:
        size = (c.batch, c.inputs, c.height, c.width)
        key = (size, c.outputs, c.kernel, c.stride, c.padding, c.dilation, c.transposed)
        assert key not in shapes
        shapes[key] = c.count
    return shapes


def ran(network: nn.Module, size: tuple[int, ...]) -> Counter:
    """Count the convolutions that ``network`` runs on images of ``size``, by shape."""
    shapes = Counter()

    def note(conv, args, out):
        size, padding = list(args[0].shape), conv.padding[0]
        if conv.padding_mode != 'zeros':
            size[2:], padding = (n + 2 * padding for n in size[2:]), 0
        steps = (conv.kernel_size[0], conv.stride[0], padding, conv.dilation[0])
        shapes[(tuple(size), conv.out_channels, *steps, conv.transposed)] += 1

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        network.to('meta')(torch.empty(size, device='meta'))
    return shapes


@pytest.mark.parametrize(('group', 'batch'), [('resnet50', 2), ('resnet50-b32', 32)])
def test_resnet50_lists_the_convolutions_of_torchvision(group, batch):
    expected = ran(resnet50(), (batch, 3, 224, 224))
    assert listed(GROUPS[group]) == expected
    assert len(expected) == 23 and expected.total() == 53


@pytest.mark.parametrize('case', MODELS, ids=lambda case: case.name)
def test_the_gate_checks_all_convolutions_of_a_model(case):
    network = systems.model('conv+gn', case)
    assert listed(case.convolutions) == ran(network, (case.batch, 3, case.size, case.size))


def test_resnet18_cifar_is_the_model_of_the_configs():
    pytest.importorskip('mmpretrain')
    from nc_plugins.models.resnet import ResNetAct_CIFAR

    backbone = ResNetAct_CIFAR(depth=18, norm_cfg=dict(type='GN', num_groups=32))
    assert listed(GROUPS['resnet18-cifar']) == ran(backbone, (2, 3, 32, 32))


def test_deeplab_is_the_dilated_part_of_a_dilated_resnet():
    backbone = resnet50(replace_stride_with_dilation=[False, True, True])
    dilated = Counter({k: n for k, n in ran(backbone, (2, 3, 512, 512)).items() if k[5] > 1})
    backbone_part = [conv for conv in GROUPS['deeplab'] if conv.inputs < 2048]
    assert listed(backbone_part) == dilated


def test_mask_rcnn_holds_the_backbone():
    backbone = ran(resnet50(), (2, 3, 800, 1344))
    shapes = listed(GROUPS['mask-rcnn'])
    assert all(shapes[key] >= count for key, count in backbone.items())
    # FPN 8, RPN 5 levels, box head 4, mask head 4
    assert shapes.total() == 53 + 8 + 5 + 4 + 4


def test_cyclegan_lists_the_convolutions_of_our_networks():
    pytest.importorskip('mmcv')
    from nc_plugins.models.cyclegan_networks import PatchDiscriminator, ResNetGenerator

    expected = ran(ResNetGenerator(), (1, 3, 256, 256))
    expected += ran(PatchDiscriminator(), (1, 3, 256, 256))
    without_norm = {  # the last layer of each, and the discriminator's first
        ((1, 64, 262, 262), 3, 7, 1, 0, 1, False),
        ((1, 3, 256, 256), 64, 4, 2, 1, 1, False),
        ((1, 512, 31, 31), 1, 4, 1, 1, 1, False),
    }
    assert without_norm <= expected.keys()
    for key in without_norm:
        del expected[key]
    assert listed(GROUPS['cyclegan']) == expected


@pytest.mark.parametrize('group', GROUPS)
def test_positions_and_names(group):
    convs = [case for case in GROUPS[group] if isinstance(case, Conv)]
    for conv in convs:
        block = systems.layer('conv', conv).to('meta')
        x = torch.empty(conv.batch, conv.inputs, conv.height, conv.width, device='meta')
        out = block(x)
        assert conv.positions == out.shape[0] * out.shape[2] * out.shape[3], conv.name
    assert len({case.name for case in GROUPS[group]}) == len(GROUPS[group])


def test_shrinking_keeps_the_layer_and_fits():
    for conv in (case for group in GROUPS.values() for case in group if isinstance(case, Conv)):
        small = conv.shrunk(2**21)
        assert small.patches <= 2**21 or min(small.height, small.width) <= 2 * conv.kernel
        assert (small.inputs, small.outputs, small.kernel) == (
            conv.inputs,
            conv.outputs,
            conv.kernel,
        )
        assert small.batch >= 1 and small.positions > 0
