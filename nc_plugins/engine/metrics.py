"""Metrics that mmpretrain and mmseg do not have."""

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


@METRICS.register_module(force=True)
class ClassIoU(BaseMetric):
    """Intersection over union of each class, in percent, for the report.

    mmseg's IoUMetric gives the mean over the classes and prints the single values only. List both
    in ``val_evaluator``. The metric ``class/IoU_classwise`` is a list in the order of the classes,
    NaN for a class that is neither in the labels nor in the predictions. Its inputs are mmseg's
    data samples with ``pred_sem_seg`` and ``gt_sem_seg``. Pixels whose label is not below the
    number of classes, such as 255, do not count.
    """

    default_prefix = 'class'

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        number = len(self.dataset_meta['classes'])
        for sample in data_samples:
            predicted = sample['pred_sem_seg']['data'].flatten().cpu().long()
            label = sample['gt_sem_seg']['data'].flatten().cpu().long()
            known = label < number
            pairs = label[known] * number + predicted[known]
            self.results.append(pairs.bincount(minlength=number**2).view(number, number))

    def compute_metrics(self, results: list) -> dict:
        confusion = sum(results)
        both = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - both
        return {'IoU_classwise': (100 * both / union).tolist()}
