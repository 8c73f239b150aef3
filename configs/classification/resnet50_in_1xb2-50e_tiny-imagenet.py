# resnet50_gn_1xb2-50e_tiny-imagenet.py with InstanceNorm, with gain and bias.
#
#     python tools/train.py configs/classification/resnet50_in_1xb2-50e_tiny-imagenet.py
_base_ = './resnet50_gn_1xb2-50e_tiny-imagenet.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='IN', affine=True)))
