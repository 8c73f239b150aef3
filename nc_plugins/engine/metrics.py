"""Metrics for classification that mmpretrain does not have."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS


# force: a second import (reload, two names for one file) must register again, not raise.
@METRICS.register_module(force=True)
class ValLoss(BaseMetric):
    """Cross-entropy of the predicted class scores: the validation loss of the paper.

    The metric ``val/loss`` is the mean of -log p(true class) over all samples, in nats, without
    label smoothing or class weights. Its inputs are the predictions of mmpretrain's classifiers:
    for each sample ``pred_score`` [C], probabilities after a softmax, and ``gt_label``, one class
    index.

    A score of 0 counts as the smallest positive normal number of its dtype, because it may be an
    underflow: a loss of 87.3 nats in float32 and 9.7 nats in float16. NaN stays NaN.

    Raises: ValueError if there is no sample, or if a sample has no ``pred_score``, no single label,
        or a label that is not below C.
    """

    default_prefix = 'val'

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            if 'pred_score' not in sample:
                raise ValueError(
                    f'ValLoss needs pred_score in every data sample, got {sorted(sample.keys())}.'
                )
            score, label = sample['pred_score'].detach(), sample['gt_label']
            if label.numel() != 1:
                raise ValueError(
                    f'ValLoss needs one label per sample, got {label.numel()}: multi-label data '
                    'has no cross-entropy over classes.'
                )
            label = int(label)
            if score.ndim != 1 or not 0 <= label < score.numel():
                raise ValueError(
                    f'ValLoss needs a label below the number of scores, got label {label} and '
                    f'pred_score of shape {tuple(score.shape)}.'
                )
            tiny = torch.finfo(score.dtype).tiny
            # Keep one number per sample, because all results are sent between ranks.
            self.results.append(-score[label].clamp(min=tiny).double().log().item())

    def compute_metrics(self, results: list) -> dict:
        if not results:
            raise ValueError('ValLoss needs at least one validation sample, got none.')
        return {'loss': sum(results) / len(results)}
