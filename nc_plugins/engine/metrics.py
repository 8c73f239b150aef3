"""Validation metrics that upstream lacks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS


# force: a second import (reload, two names for one file) must register again, not raise.
@METRICS.register_module(force=True)
class ValLoss(BaseMetric):
    """Cross-entropy of the predicted class scores, the paper's validation loss.

    Reads what mmpretrain's classifiers return from ``predict``: per sample ``pred_score`` [C]
    (probabilities, as after softmax) and ``gt_label`` (one class index). Result: ``val/loss``, the
    mean of -log p(true class) over all samples, in nats, with no label smoothing or class weights.

    A score that underflowed to 0 counts as the smallest positive normal number of its dtype
    (1.2e-38 for float32, a loss of 87.3 nats; 6.1e-5 for float16, 9.7 nats); NaN stays NaN.

    Raises: ValueError if a sample has no ``pred_score``, if it has not exactly one label, if the
    label is not a class of ``pred_score``, or if there was no sample at all.
    """

    default_prefix = 'val'

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            if 'pred_score' not in sample:
                raise ValueError(
                    f'ValLoss wants pred_score in every data sample, got {sorted(sample.keys())}.'
                )
            score, label = sample['pred_score'].detach(), sample['gt_label']
            if label.numel() != 1:
                raise ValueError(
                    f'ValLoss wants one label per sample, got {label.numel()}: multi-label data '
                    'has no cross-entropy over classes.'
                )
            label = int(label)
            if score.ndim != 1 or not 0 <= label < score.numel():
                raise ValueError(
                    f'ValLoss wants a label below the number of scores, got label {label} and '
                    f'pred_score of shape {tuple(score.shape)}.'
                )
            tiny = torch.finfo(score.dtype).tiny
            # Only one number per sample is kept and sent between ranks, not the C scores.
            self.results.append(-score[label].clamp(min=tiny).double().log().item())

    def compute_metrics(self, results: list) -> dict:
        if not results:
            raise ValueError('ValLoss wants at least one validation sample, got none.')
        return {'loss': sum(results) / len(results)}
