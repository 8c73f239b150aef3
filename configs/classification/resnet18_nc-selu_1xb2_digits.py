# resnet18_gn_1xb2_digits.py with Normalized Convolution, and SELU instead of ReLU.
#
#     python tools/train.py configs/classification/resnet18_nc-selu_1xb2_digits.py
_base_ = './resnet18_gn_1xb2_digits.py'

model = dict(
    backbone=dict(
        conv_cfg=dict(type='NC'),
        norm_cfg=dict(_delete_=True, type='NC'),
        act_cfg=dict(_delete_=True, type='SELU', inplace=True),
    )
)
