# default_runtime.py for image translation (CycleGAN, ours on mmengine).
_base_ = './default_runtime.py'

custom_imports = dict(
    imports=[
        'nc_plugins',
        'nc_plugins.datasets.unpaired',
        'nc_plugins.engine.optim',
        'nc_plugins.engine.translation',
        'nc_plugins.engine.translation_metrics',
        'nc_plugins.models.cyclegan',
    ],
    allow_failed_imports=False,
)

default_scope = 'mmengine'  # where a type is looked up first

# No best checkpoint: no single number says which translator is best.
default_hooks = dict(
    # Sample grids at each validation; pictures in tests with tools/test.py --show-dir.
    visualization=dict(type='TranslationVisualizationHook', rows=4, draw=False)
)
# Several GPUs: the wrapper that knows two optimisers. Without a launcher it is not used.
model_wrapper_cfg = dict(type='MMSeparateDistributedDataParallel')
# Each GPU draws its own pairs, crops and pool.
randomness = dict(diff_rank_seed=True)
