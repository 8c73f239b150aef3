# default_runtime.py for image translation (the CycleGAN of this package, on mmengine).
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

default_scope = 'mmengine'  # registry in which types are looked up

# There is no best checkpoint, because no single measure ranks translators.
default_hooks = dict(
    # Writes sample grids at each validation; tools/test.py --show-dir writes every picture.
    visualization=dict(type='TranslationVisualizationHook', rows=4, draw=False),
    image_pool=dict(type='ImagePoolHook'),  # so that a resumed training is exact
)
# For several GPUs: mmengine's wrapper for models with several optimisers.
model_wrapper_cfg = dict(type='MMSeparateDistributedDataParallel')
# Each GPU draws its own pairs, crops and images of the pool.
randomness = dict(diff_rank_seed=True)
