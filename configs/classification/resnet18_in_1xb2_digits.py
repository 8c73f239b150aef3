# resnet18_gn_1xb2_digits.py with InstanceNorm, with gain and bias.
#
#     python tools/train.py configs/classification/resnet18_in_1xb2_digits.py
_base_ = './resnet18_gn_1xb2_digits.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='IN', affine=True)))
