# DeepLabV3+ with GroupNorm, trained as the DeepLabV3 it inherits: from scratch on VOC 2012 + SBD,
# whose notes on data, schedule and GPUs hold here. Baseline of the
# deeplabv3plus_r50-d8-scratch_*_4xb4-120k_voc12aug-512x512.py files, which inherit it.
#
#     python tools/train.py \
#         configs/deeplab/deeplabv3plus_r50-d8-scratch_gn_4xb4-120k_voc12aug-512x512.py
#
# The head is mmseg's DepthwiseSeparableASPPHead in a subclass, because mmseg hands no conv_cfg to
# separable convolutions. Theirs stay two: a pointwise one, which takes conv_cfg, and a depthwise
# one, plain in every twin; in the NC twins gain and bias follow it, and no normalisation before the
# pointwise one's. Plain are also decode_head.conv_seg and auxiliary_head.conv_seg.
_base_ = './deeplabv3_r50-d8-scratch_gn_4xb4-120k_voc12aug-512x512.py'
custom_imports = dict(
    imports=['nc_plugins', 'nc_plugins.datasets.loading', 'nc_plugins.models.sep_aspp_head'],
    allow_failed_imports=False,
)

model = dict(
    decode_head=dict(
        type='SepASPPHead',
        c1_in_channels=256,  # of the first stage, whose edges sharpen the output
        c1_channels=48,
    )
)
