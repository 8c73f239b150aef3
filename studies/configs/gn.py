# A thin ResNet-18 with GroupNorm on a tenth of CIFAR-10, the baseline of docs/results/protocol.md.
# The files beside it exchange its norm. The recipe is the paper's: batches of 2, SGD without
# momentum or weight decay.
#
# Training: the first 500 training images of each class. Validation: the next 200, so that the test
# images choose no learning rate. The option of the final runs is in studies/worklist.py.
_base_ = '../../configs/classification/resnet18-w16_gn_1xb2-6e_cifar10-5k.py'

data_root = 'data/cifar10'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root, split='train', skip=500, per_class=200))
test_dataloader = dict(dataset=dict(data_root=data_root, per_class=None))

train_cfg = dict(max_epochs=3)
