# resnet18_gn_1xb2-50e_cifar10.py with PositionalNorm (arXiv 1907.04312), which normalises each
# pixel over its channels.
#
#     python tools/train.py configs/classification/resnet18_pn_1xb2-50e_cifar10.py
_base_ = './resnet18_gn_1xb2-50e_cifar10.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='PN')))
