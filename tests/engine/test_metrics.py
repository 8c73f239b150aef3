import math
import runpy

import pytest
import torch
import torch.nn.functional as F
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS

from nc_plugins.engine.metrics import ClassIoU, ValLoss


def evaluate(scores, labels):
    metric = ValLoss()
    for score, label in zip(scores, labels, strict=True):
        metric.process(None, [{'pred_score': score, 'gt_label': torch.as_tensor([label])}])
    return metric.evaluate(len(labels))


@pytest.mark.parametrize('classes', [2, 7])
def test_is_torchs_cross_entropy(classes):
    torch.manual_seed(0)
    logits = 5 * torch.randn(33, classes, dtype=torch.float64)
    labels = torch.randint(classes, (33,))
    got = evaluate(logits.softmax(1).float(), labels)
    assert got.keys() == {'val/loss'}
    assert got['val/loss'] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)


@pytest.mark.parametrize(
    ('dtype', 'nats'), [(torch.float32, 126 * math.log(2)), (torch.float16, 14 * math.log(2))]
)
def test_a_score_that_underflowed_costs_the_smallest_normal_number(dtype, nats):
    scores = torch.tensor([[0, 1]], dtype=dtype)
    assert evaluate(scores, [0])['val/loss'] == pytest.approx(nats)


def test_nan_scores_give_nan():
    assert math.isnan(evaluate(torch.tensor([[math.nan, 0.5], [0.5, 0.5]]), [0, 1])['val/loss'])


def test_reads_mmpretrains_samples_through_an_evaluator():
    structures = pytest.importorskip('mmpretrain.structures')
    scores = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    samples = [
        structures.DataSample().set_pred_score(score).set_gt_label(label)
        for score, label in zip(scores, (1, 0), strict=True)
    ]
    evaluator = Evaluator([{'type': 'ValLoss'}])
    evaluator.process(samples)
    expected = -(math.log(0.75) + math.log(0.5)) / 2
    assert evaluator.evaluate(2)['val/loss'] == pytest.approx(expected)


@pytest.mark.parametrize(
    ('sample', 'match'),
    [
        ({'pred_label': torch.tensor([0])}, r"needs pred_score.*got \['pred_label'\]"),
        ({'pred_score': torch.ones(3), 'gt_label': torch.tensor([0, 1])}, 'one label.*got 2'),
        ({'pred_score': torch.ones(3), 'gt_label': torch.tensor([3])}, r'got label 3.*\(3,\)'),
        ({'pred_score': torch.ones(3), 'gt_label': torch.tensor([-1])}, 'got label -1'),
    ],
)
def test_what_it_cannot_score_is_an_error(sample, match):
    with pytest.raises(ValueError, match=match):
        ValLoss().process(None, [sample])


def test_no_sample_is_an_error():
    with pytest.raises(ValueError, match='at least one validation sample'):
        ValLoss().evaluate(0)


@pytest.mark.filterwarnings('ignore:.*found in sys.modules:RuntimeWarning')
def test_a_second_import_does_not_raise():
    try:
        again = runpy.run_module('nc_plugins.engine.metrics')['ValLoss']
        assert METRICS.get('ValLoss') is again
    finally:
        METRICS.register_module(module=ValLoss, force=True)


def segmented(predicted, label):
    return {
        'pred_sem_seg': {'data': torch.tensor([predicted])},
        'gt_sem_seg': {'data': torch.tensor([label])},
    }


def test_the_iou_of_each_class_by_hand():
    metric = ClassIoU()
    metric.dataset_meta = {'classes': ('road', 'car', 'sky', 'tree')}
    # Road: 2 of 4 pixels. Car: 1 of 3. Sky is predicted once and never right. No tree.
    metric.process(None, [segmented([[0, 0, 1, 2]], [[0, 0, 1, 0]])])
    metric.process(None, [segmented([[0, 3, 0]], [[1, 255, 1]])])
    values = metric.evaluate(2)
    assert values['class/IoU_classwise'][:3] == pytest.approx([40.0, 100 / 3, 0.0])
    assert math.isnan(values['class/IoU_classwise'][3])


def test_the_iou_of_the_classes_has_mmsegs_mean():
    iou = pytest.importorskip('mmseg.evaluation').IoUMetric()
    metrics = [iou, ClassIoU()]
    for metric in metrics:
        metric.dataset_meta = {'classes': tuple('abcde')}
    torch.manual_seed(0)
    for _ in range(3):
        label, guess = torch.randint(5, (1, 8, 9)), torch.randint(5, (1, 8, 9))
        label[torch.rand(label.shape) < 0.1] = 255
        sample = {'pred_sem_seg': {'data': guess}, 'gt_sem_seg': {'data': label}}
        for metric in metrics:
            metric.process(None, [sample])
    mean, single = (metric.evaluate(3) for metric in metrics)
    values = single['class/IoU_classwise']
    assert sum(values) / 5 == pytest.approx(mean['mIoU'], abs=0.006)  # mmseg rounds
