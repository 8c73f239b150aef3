# resnet50_gn_1xb2-50e_tiny-imagenet.py with BatchNorm, whose statistics come from batches of 2
# images.
#
#     python tools/train.py configs/classification/resnet50_bn_1xb2-50e_tiny-imagenet.py
_base_ = './resnet50_gn_1xb2-50e_tiny-imagenet.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='BN')))
