"""A classifier in float64, for configs: rounding is too small to hide a wrong gradient."""

from mmengine.registry import MODELS
from mmpretrain.models import ClsDataPreprocessor, ImageClassifier


@MODELS.register_module(force=True)
class DoubleClassifier(ImageClassifier):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.double()


@MODELS.register_module(force=True)
class DoublePreprocessor(ClsDataPreprocessor):
    def forward(self, data, training=False):
        data = super().forward(data, training)
        return {**data, 'inputs': data['inputs'].double()}
