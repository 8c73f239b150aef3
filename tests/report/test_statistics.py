"""Paired tests, against values computed by hand and by scipy's other functions."""

import math
from itertools import product

import pytest
from scipy import stats

from nc_plugins.report.statistics import Evidence, compare_paired, holm, paired_test


def test_three_pairs_by_hand():
    # Differences 1, 2, 3: mean 2, deviation 1, t(0.975, 2) = 4.302653, so 2 ± 4.302653 / sqrt(3).
    test = paired_test([1.0, 2.0, 3.0])
    assert (test.n, test.mean, test.std) == (3, 2.0, 1.0)
    assert test.interval == pytest.approx((-0.484138, 4.484138), abs=1e-6)
    # Only +++ and --- are as far from 0, of 8.
    assert test.p == test.smallest_p == 0.25
    assert test.evidence is Evidence.NONE


def test_six_pairs_by_scipy_and_by_enumeration():
    values = [5.0, 3.0, -1.0, 4.0, 2.0, 6.0]
    test = paired_test(values)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert test.interval == pytest.approx((interval.low, interval.high), rel=1e-12)
    sums = [
        sum(s * v for s, v in zip(signs, values, strict=True))
        for signs in product((1, -1), repeat=6)
    ]
    assert test.p == sum(abs(s) >= sum(values) for s in sums) / 64
    assert test.smallest_p == 2 / 64


@pytest.mark.parametrize('n', [3, 4, 6, 10])
def test_equal_signs_give_the_smallest_p(n):
    for sign in (1, -1):
        test = paired_test([sign * (0.1 + 0.01 * i) for i in range(n)])
        assert test.p == test.smallest_p == 2 / 2**n


def test_p_has_no_rounding_errors_at_ties():
    """0.3 is not 0.1 + 0.2 in floating point, but the two choices of signs are a tie."""
    test = paired_test([0.1 + 0.2, 0.3, 0.3])
    assert test.p == 0.25
    assert paired_test([0.3, -(0.1 + 0.2), 0.3]).p == 1.0


def test_many_pairs_are_sampled_and_repeatable():
    values = [1.0 + 0.01 * i for i in range(30)]
    test = paired_test(values)
    assert test.p == paired_test(values).p
    assert test.smallest_p <= test.p < 1e-3


@pytest.mark.parametrize('values', [[], [4.0], [4.0, 4.1]])
def test_fewer_than_three_pairs_are_not_tested(values):
    test = paired_test(values)
    assert (test.interval, test.p, test.adjusted_p, test.smallest_p) == (None,) * 4
    assert test.evidence is Evidence.UNTESTED
    assert test.mean == (pytest.approx(sum(values) / len(values)) if values else None)
    assert (test.std is None) == (len(values) < 2)


def test_a_value_that_is_not_finite_stays_visible():
    test = paired_test([1.0, math.nan, 2.0, 3.0])
    assert math.isnan(test.mean) and math.isnan(test.std)
    assert test.evidence is Evidence.UNTESTED


def test_equal_differences_leave_an_interval_of_no_width():
    assert paired_test([0.0] * 6).interval == (0.0, 0.0)
    assert paired_test([0.0] * 6).evidence is Evidence.NONE
    assert paired_test([0.5] * 6).interval == (0.5, 0.5)
    assert paired_test([0.5] * 6).evidence is Evidence.STRONG


def test_holm_by_hand():
    # Sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2 (raised to 0.06), 0.5 * 1.
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.25, 0.25, 0.25]) == [0.75] * 3
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_pairs_are_the_seeds_that_both_have():
    baseline = {0: 40.0, 1: 42.0, 2: 47.0, 5: 1.0}
    test = compare_paired(baseline, {'nc': {2: 48.0, 0: 42.0, 1: 45.0, 7: 0.0}})['nc']
    assert test.differences == (2.0, 3.0, 1.0)
    assert test.p == test.adjusted_p == 0.25


def test_holm_covers_the_configs_that_are_tested():
    baseline = dict.fromkeys(range(6), 0.0)
    clear = dict(enumerate([1.0, 1.1, 1.2, 1.0, 0.9, 1.1]))
    others = {
        'better': clear,
        'worse': {seed: -value for seed, value in clear.items()},
        'two seeds': {0: 9.0, 1: 9.0},
        'diverged': {**clear, 3: math.nan},
    }
    tests = compare_paired(baseline, others)
    assert tests['better'].p == tests['worse'].p == 2 / 64
    assert tests['better'].adjusted_p == tests['worse'].adjusted_p == 4 / 64
    # The interval excludes 0, but with two configs 6 pairs cannot reach 0.05.
    assert tests['better'].evidence is tests['worse'].evidence is Evidence.WEAK
    assert compare_paired(baseline, {'better': clear})['better'].evidence is Evidence.STRONG
    assert tests['two seeds'].adjusted_p is tests['diverged'].adjusted_p is None


def test_a_small_p_with_a_wide_interval_is_weak():
    test = paired_test([0.1, 0.1, 0.1, 0.1, 0.1, 9.0])
    assert test.p == 2 / 64 and test.interval[0] < 0
    assert test.evidence is Evidence.WEAK
