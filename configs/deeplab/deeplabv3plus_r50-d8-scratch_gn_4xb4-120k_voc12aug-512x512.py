# DeepLabV3+ with GroupNorm from scratch on VOC 2012 + SBD. Data, schedule and GPUs are those of the
# DeepLabV3 that it inherits; see the notes there. The
# deeplabv3plus_r50-d8-scratch_*_4xb4-120k_voc12aug-512x512.py files inherit it.
#
#     python tools/train.py \
#         configs/deeplab/deeplabv3plus_r50-d8-scratch_gn_4xb4-120k_voc12aug-512x512.py
#
# SepASPPHead is mmseg's DepthwiseSeparableASPPHead with conv_cfg in the pointwise convolutions of
# its separable convolutions. Plain in every variant are the five depthwise convolutions,
# decode_head.conv_seg and auxiliary_head.conv_seg. In the NC variants the norm slot behind a
# depthwise convolution is only a gain and a bias.
_base_ = './deeplabv3_r50-d8-scratch_gn_4xb4-120k_voc12aug-512x512.py'
custom_imports = dict(
    imports=['nc_plugins', 'nc_plugins.models.sep_aspp_head'], allow_failed_imports=False
)

model = dict(
    decode_head=dict(
        type='SepASPPHead',
        c1_in_channels=256,  # of the first stage
        c1_channels=48,
    )
)
