# Registration, hooks, logs and seed of every config. The other *_runtime.py files add the settings
# of a task, and configs inherit one of them.

# Registers NC, NCAffine, PN and the hooks below, so no other import is needed. A config that
# imports more modules repeats this list, because mmengine does not merge lists.
custom_imports = dict(imports=['nc_plugins'], allow_failed_imports=False)
# Random numbers depend on the seed and the position alone. So a resumed training equals an
# uninterrupted one, and validations do not change the training.
runner_type = 'ReliableRunner'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    # In iterations. A line takes about 1 ms, and batches of 2 images mean many iterations.
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Keeps the last two checkpoints, to resume, and the best one by the measure of the task, to
    # test. The interval is in epochs.
    checkpoint=dict(type='DurableCheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),  # reshuffles each epoch on several GPUs
)
# NCCensusHook logs the layers of the model and rejects a config that replaces only one of
# convolution and norm. RunRecordHook writes the record that tools/compare.py reads. DataCheckHook
# checks images and labels when they are read, so that the pipelines have upstream's transforms, and
# the inferencers of mmdet and mmseg find them. tools/train.py adds these three to a config that
# does not list them. ShortHistoryHook bounds mmengine's log history, which otherwise slows down
# long trainings.
custom_hooks = [
    dict(type='NCCensusHook'),
    dict(type='RunRecordHook'),
    dict(type='DataCheckHook'),
    dict(type='ShortHistoryHook', keep=1000),  # in iterations
]

env_cfg = dict(
    cudnn_benchmark=False,  # the same algorithms in every run, so that runs are comparable
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),  # 0: OpenCV starts no threads
    dist_cfg=dict(backend='nccl'),  # without GPUs, tools/train.py uses gloo
)

visualizer = dict(
    type='Visualizer',
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
)
log_processor = dict(by_epoch=True, window_size=100)  # iterations of a running mean
log_level = 'INFO'

randomness = dict(seed=0, deterministic=False)  # --cfg-options randomness.seed=1 for another run
load_from = None  # a checkpoint whose weights the training starts from
resume = False  # True restores the whole state of a run (tools/train.py --resume)
