# Twin of resnet18_gn_1xb2-50e_cifar10.py: NC convolutions followed by GroupNorm.
# The norm slot stays as it is; the GroupNorm brings the gain and the bias.
#
#     python tools/train.py configs/classification/resnet18_nc-gn_1xb2-50e_cifar10.py
_base_ = './resnet18_gn_1xb2-50e_cifar10.py'

model = dict(backbone=dict(conv_cfg=dict(type='NC')))
