# default_runtime.py for semantic segmentation (mmseg). Training is counted in iterations.
_base_ = './default_runtime.py'

default_scope = 'mmseg'  # registry in which types are looked up, before mmengine's

default_hooks = dict(
    checkpoint=dict(by_epoch=False, save_best='mIoU', rule='greater'),
    visualization=dict(type='SegVisualizationHook', draw=False),  # tools/test.py --show-dir
)
visualizer = dict(type='SegLocalVisualizer')
log_processor = dict(by_epoch=False)

val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
