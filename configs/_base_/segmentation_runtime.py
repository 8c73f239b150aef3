# default_runtime.py for semantic segmentation (mmseg).
_base_ = './default_runtime.py'

default_scope = 'mmseg'  # where a type is looked up first; unknown there means mmengine's

default_hooks = dict(
    checkpoint=dict(save_best='mIoU', rule='greater'),
    visualization=dict(type='SegVisualizationHook', draw=False),  # tools/test.py --show-dir
)
visualizer = dict(type='SegLocalVisualizer')
