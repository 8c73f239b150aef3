# resnet50_gn_1xb2-50e_tiny-imagenet.py with PositionalNorm (arXiv 1907.04312), which normalises
# each pixel over its channels.
#
#     python tools/train.py configs/classification/resnet50_pn_1xb2-50e_tiny-imagenet.py
_base_ = './resnet50_gn_1xb2-50e_tiny-imagenet.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='PN')))
