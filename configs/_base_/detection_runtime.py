# default_runtime.py for detection and instance segmentation (mmdet).
_base_ = './default_runtime.py'

default_scope = 'mmdet'  # registry in which types are looked up, before mmengine's

default_hooks = dict(
    checkpoint=dict(save_best='coco/segm_mAP', rule='greater'),
    visualization=dict(type='DetVisualizationHook', draw=False),  # tools/test.py --show-dir
)
visualizer = dict(type='DetLocalVisualizer')
