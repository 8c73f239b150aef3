# cyclegan_resnet2-w16_in_1xb8-10e_digits.py with Normalized Convolution.
#
#     python tools/train.py configs/cyclegan/cyclegan_resnet2-w16_nc_1xb8-10e_digits.py
#
# ../_base_/models/cyclegan_nc.py lists the convolutions that stay plain.
_base_ = ['./cyclegan_resnet2-w16_in_1xb8-10e_digits.py', '../_base_/models/cyclegan_nc.py']

model = _base_.slots
