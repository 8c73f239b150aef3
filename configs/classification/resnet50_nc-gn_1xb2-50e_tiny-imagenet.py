# Twin of resnet50_gn_1xb2-50e_tiny-imagenet.py: NC convolutions followed by GroupNorm.
# The norm slot stays as it is; the GroupNorm brings the gain and the bias.
#
#     python tools/train.py configs/classification/resnet50_nc-gn_1xb2-50e_tiny-imagenet.py
_base_ = './resnet50_gn_1xb2-50e_tiny-imagenet.py'

model = dict(backbone=dict(conv_cfg=dict(type='NC')))
