# cyclegan_resnet9_in_1xb1-200e_horse2zebra.py with Normalized Convolution.
#
#     python tools/train.py configs/cyclegan/cyclegan_resnet9_nc_1xb1-200e_horse2zebra.py
#
# ../_base_/models/cyclegan_nc.py lists the convolutions that stay plain.
_base_ = ['./cyclegan_resnet9_in_1xb1-200e_horse2zebra.py', '../_base_/models/cyclegan_nc.py']

model = _base_.slots
