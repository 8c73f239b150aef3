# resnet18_gn_1xb2-50e_cifar10.py with Normalized Convolution, and ELU instead of ReLU.
#
#     python tools/train.py configs/classification/resnet18_nc-elu_1xb2-50e_cifar10.py
_base_ = './resnet18_gn_1xb2-50e_cifar10.py'

model = dict(
    backbone=dict(
        conv_cfg=dict(type='NC'),
        norm_cfg=dict(_delete_=True, type='NC'),
        act_cfg=dict(_delete_=True, type='ELU', inplace=True),
    )
)
