# What every config shares: registration, hooks, logs, seed. No model, no data, no task: the
# *_runtime.py files beside it add the task, and configs inherit one of those.

# Registers NC, NCAffine, PN and the two hooks below; a config loads in a process that has not
# imported nc_plugins. A child that imports more repeats the whole list (lists are not merged).
custom_imports = dict(imports=['nc_plugins'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    # In iterations; one line costs about 1 ms, and batch 2 makes many iterations.
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # The last checkpoint (to resume) and the best one (to test), best by the task's own measure.
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),  # interval in epochs
    sampler_seed=dict(type='DistSamplerSeedHook'),  # another order each epoch when distributed
)
# The census logs what the model is made of and stops a half swap that it can see; the record is
# what tools/compare.py reads. tools/train.py adds these two to a config that does not list them.
# The third keeps the many iterations of batch 2 from slowing mmengine down.
custom_hooks = [
    dict(type='NCCensusHook'),
    dict(type='RunRecordHook'),
    dict(type='ShortHistoryHook', keep=1000),  # in iterations
]

env_cfg = dict(
    cudnn_benchmark=False,  # the same algorithm in every run, so that twins are comparable
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),  # 0: OpenCV stays in its thread
    dist_cfg=dict(backend='nccl'),  # 'gloo' for several processes without GPUs
)

visualizer = dict(
    type='Visualizer',
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
)
log_processor = dict(by_epoch=True, window_size=100)  # means over as many iterations as a line
log_level = 'INFO'

randomness = dict(seed=0, deterministic=False)  # --cfg-options randomness.seed=1 for another run
load_from = None  # a checkpoint to start from: weights alone
resume = False  # True: the whole state of the run (tools/train.py --resume)
