# default_runtime.py for classification (mmpretrain).
_base_ = './default_runtime.py'

default_scope = 'mmpretrain'  # where a type is looked up first; unknown there means mmengine's

default_hooks = dict(
    checkpoint=dict(save_best='accuracy/top1', rule='greater'),
    visualization=dict(type='VisualizationHook', enable=False),  # tools/test.py --show-dir
)
visualizer = dict(type='UniversalVisualizer')
