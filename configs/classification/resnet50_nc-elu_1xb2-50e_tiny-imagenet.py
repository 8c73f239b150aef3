# resnet50_gn_1xb2-50e_tiny-imagenet.py with Normalized Convolution, and ELU instead of ReLU.
#
#     python tools/train.py configs/classification/resnet50_nc-elu_1xb2-50e_tiny-imagenet.py
_base_ = './resnet50_gn_1xb2-50e_tiny-imagenet.py'

model = dict(
    backbone=dict(
        conv_cfg=dict(type='NC'),
        norm_cfg=dict(_delete_=True, type='NC'),
        act_cfg=dict(_delete_=True, type='ELU', inplace=True),
    )
)
