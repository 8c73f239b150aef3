"""Differences of configs to a baseline, paired by seed: interval, exact p and evidence.

    tests = compare_paired({0: 40.0, 1: 42.0, 2: 41.0}, {'nc': {0: 45.0, 1: 46.0, 2: 46.0}})
    tests['nc'].mean, tests['nc'].interval, tests['nc'].p, tests['nc'].evidence

A seed fixes the order of the images and the first weights, so two configs with the same seed share
a part of the noise. Their difference does not contain that part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from statistics import fmean, stdev

import numpy as np
from scipy import stats

MIN_PAIRS = 3
CONFIDENCE = 0.95
_EXACT_UP_TO = 2**16  # sign flips, that is 16 pairs


class Evidence(Enum):
    """How well a difference is shown. See :attr:`PairedTest.evidence`."""

    UNTESTED = 'untested'
    NONE = 'none'
    WEAK = 'weak'
    STRONG = 'strong'


@dataclass(frozen=True)
class PairedTest:
    """The differences between a config and the baseline, over the seeds that both have.

    Attributes:
        differences: value of the config minus value of the baseline, one for each seed.
        mean: mean difference; None without pairs, NaN if a value is not finite.
        std: sample standard deviation of the differences; None with fewer than two pairs.
        interval: 95 % confidence interval of the mean, by Student's t.
        p: two-sided p-value of the sign-flip test: the share of all choices of signs whose mean
            is at least as far from 0. All choices are counted up to 16 pairs, 65,536 random ones
            above.
        adjusted_p: ``p`` after Holm's correction for the number of configs in the comparison.
        smallest_p: the smallest ``p`` that this number of pairs can give.

    ``interval``, ``p``, ``adjusted_p`` and ``smallest_p`` are None with fewer than ``MIN_PAIRS``
    pairs or a value that is not finite.
    """

    differences: tuple[float, ...]
    mean: float | None = None
    std: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    adjusted_p: float | None = None
    smallest_p: float | None = None

    @property
    def n(self) -> int:
        return len(self.differences)

    @property
    def evidence(self) -> Evidence:
        """How well the sign of the mean is shown.

        UNTESTED: too few pairs, or a value is not finite. STRONG: the interval excludes 0 and the
        adjusted p is at most 0.05. WEAK: one of the two. NONE: neither.
        """
        if self.interval is None:
            return Evidence.UNTESTED
        low, high = self.interval
        excludes_zero = low > 0 or high < 0
        small_p = self.adjusted_p <= 1 - CONFIDENCE
        if excludes_zero and small_p:
            return Evidence.STRONG
        return Evidence.WEAK if excludes_zero or small_p else Evidence.NONE


def compare_paired(
    baseline: Mapping[int, float], others: Mapping[str, Mapping[int, float]]
) -> dict[str, PairedTest]:
    """Compare each config with the baseline, over the seeds that both have.

    The p-values of all configs with enough pairs are corrected together, by Holm's method. Call
    once for each metric: several metrics are not corrected for.

    Args:
        baseline: {seed: value}.
        others: {name: {seed: value}}.
    """
    tests = {
        name: paired_test([values[seed] - baseline[seed] for seed in baseline if seed in values])
        for name, values in others.items()
    }
    tested = [name for name, test in tests.items() if test.p is not None]
    for name, p in zip(tested, holm([tests[name].p for name in tested]), strict=True):
        tests[name] = replace(tests[name], adjusted_p=p)
    return tests


def paired_test(differences: Sequence[float]) -> PairedTest:
    """Test whether the mean of ``differences`` is 0. The result is not corrected by Holm."""
    values = tuple(map(float, differences))
    n = len(values)
    if not all(map(math.isfinite, values)):
        return PairedTest(values, mean=math.nan, std=math.nan if n > 1 else None)
    mean, std = fmean(values) if n else None, stdev(values) if n > 1 else None
    if n < MIN_PAIRS:
        return PairedTest(values, mean, std)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * std / math.sqrt(n)
    p, smallest = _sign_flip_p(values), 2 / min(2**n, _EXACT_UP_TO + 1)
    return PairedTest(values, mean, std, (mean - half, mean + half), p, p, smallest)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order of ``p_values``."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _sign_flip_p(values: Sequence[float]) -> float:
    test = stats.permutation_test(
        [np.array(values)],
        np.mean,
        permutation_type='samples',  # of a single sample: its signs are flipped
        vectorized=True,
        n_resamples=_EXACT_UP_TO,
        rng=0,  # the same p for the same values
    )
    return float(test.pvalue)
