# cyclegan_resnet4-w24_in_1xb1-8e_day2dusk.py with Normalized Convolution.
#
#     python tools/train.py configs/cyclegan/cyclegan_resnet4-w24_nc_1xb1-8e_day2dusk.py
#
# ../_base_/models/cyclegan_nc.py lists the convolutions that stay plain.
_base_ = ['./cyclegan_resnet4-w24_in_1xb1-8e_day2dusk.py', '../_base_/models/cyclegan_nc.py']

model = _base_.slots
