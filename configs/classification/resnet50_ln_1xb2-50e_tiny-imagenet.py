# Twin of resnet50_gn_1xb2-50e_tiny-imagenet.py: LayerNorm.
# Layer norm of a convolutional network: one group over C, H and W, as the GroupNorm paper has it.
#
#     python tools/train.py configs/classification/resnet50_ln_1xb2-50e_tiny-imagenet.py
_base_ = './resnet50_gn_1xb2-50e_tiny-imagenet.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=1)))
