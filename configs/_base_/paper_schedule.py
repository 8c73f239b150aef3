# The schedule of arXiv 2005.05274, Sec. 3.1: SGD at 0.01 without momentum or weight decay, divided
# by 10 every 30 epochs, 50 epochs. The batch size of 2 is in each config's train_dataloader.

optim_wrapper = dict(
    type='OptimWrapper',  # float32; the paper uses no mixed precision
    optimizer=dict(type='SGD', lr=0.01, momentum=0.0, weight_decay=0.0),
)
param_scheduler = dict(type='StepLR', step_size=30, gamma=0.1, by_epoch=True)  # in epochs

train_cfg = dict(by_epoch=True, max_epochs=50, val_interval=1)  # in epochs
val_cfg = dict()
test_cfg = dict()

# The batch size over all GPUs for which lr was chosen. tools/train.py --auto-scale-lr enables it.
auto_scale_lr = dict(base_batch_size=2, enable=False)
