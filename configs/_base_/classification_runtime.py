# default_runtime.py for classification (mmpretrain).
_base_ = './default_runtime.py'

default_scope = 'mmpretrain'  # registry in which types are looked up, before mmengine's

default_hooks = dict(
    checkpoint=dict(save_best='accuracy/top1', rule='greater'),
    visualization=dict(type='VisualizationHook', enable=False),  # tools/test.py --show-dir
)
visualizer = dict(type='UniversalVisualizer')
