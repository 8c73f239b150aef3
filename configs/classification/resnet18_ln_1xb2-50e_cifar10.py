# Twin of resnet18_gn_1xb2-50e_cifar10.py: LayerNorm.
# Layer norm of a convolutional network: one group over C, H and W, as the GroupNorm paper has it.
#
#     python tools/train.py configs/classification/resnet18_ln_1xb2-50e_cifar10.py
_base_ = './resnet18_gn_1xb2-50e_cifar10.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=1)))
