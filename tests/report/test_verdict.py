"""What the report concludes, in sentences."""

import math

import pytest
from fake_runs import GN, NC, missing, run

import nc_plugins.report as report
from nc_plugins.report.verdict import answer, caveats, verdicts

GN_TOP1 = (40.0, 42.0, 41.0, 43.0, 39.0, 41.0)


def compared(top1, gn=GN_TOP1, name=NC):
    """Summaries of GN with the accuracies ``gn`` and of another config with ``top1``, by seed."""
    return report.summarize(
        [run(c, seed, t) for c, values in ((GN, gn), (name, top1)) for seed, t in enumerate(values)]
    )


@pytest.mark.parametrize(
    ('top1', 'verdict', 'answer_begins'),
    [
        (
            (45.0, 47.0),
            'nc is 5.00 higher than the baseline (better), over 2 pairs of seeds. '
            'A verdict needs at least 3 pairs.',
            'No verdict between nc and gn in top-1 accuracy (%): 46.00 against 41.00, +5.00 over 2 '
            'pairs of seeds, and a verdict needs 3.',
        ),
        (
            # Differences 1, 2, 3: see test_statistics.py.
            (41.0, 44.0, 44.0),
            'nc is 2.00 higher than the baseline (better), over 3 pairs of seeds (95 % interval '
            '-0.48 to +4.48; p 0.25, smallest possible 0.25). '
            'This does not show which one is better.',
            'These runs do not show which is better in top-1 accuracy (%), nc or gn: 43.00 against',
        ),
        (
            (45.0, 47.1, 46.0),
            'nc is 5.03 higher than the baseline (better), over 3 pairs of seeds (95 % interval '
            '+4.89 to +5.18; p 0.25, smallest possible 0.25). '
            'Weak evidence: the interval excludes 0, but p is above 0.05.',
            'There is weak evidence that nc is better than gn in top-1 accuracy (%): 46.03 against',
        ),
        (
            tuple(value - 5 for value in GN_TOP1),
            'nc is 5.00 lower than the baseline (worse), over 6 pairs of seeds (95 % interval '
            '-5.00 to -5.00; p 0.031, smallest possible 0.031). '
            'Both the interval and p show a difference.',
            'nc is worse than gn in top-1 accuracy (%): 36.00 against 41.00, -5.00 over 6 pairs',
        ),
        (
            (40.1, 42.1, 41.1, 43.1, 39.1, 50.0),
            'nc is 1.58 higher than the baseline (better), over 6 pairs of seeds (95 % interval '
            '-2.23 to +5.40; p 0.031, smallest possible 0.031). '
            'Weak evidence: p is small, but the interval includes 0.',
            'There is weak evidence that nc is better than gn',
        ),
        (
            GN_TOP1,
            'nc and the baseline are equal to the digits shown, over 6 pairs of seeds (95 % '
            'interval +0.00 to +0.00; p 1, smallest possible 0.031). '
            'This does not show which one is better.',
            'These runs do not show which is better in top-1 accuracy (%), nc or gn',
        ),
    ],
)
def test_differences_are_tested_over_pairs_of_seeds(top1, verdict, answer_begins):
    summaries = compared(top1)
    assert verdicts(summaries)[0] == f'top-1 accuracy (%): {verdict}'
    assert answer(summaries).startswith(answer_begins)
    assert answer(summaries).count('. ') == 0  # one sentence


def test_the_answer_without_a_comparison():
    gone = report.summarize([missing(GN, 0), run(NC, 0, 45.0)])
    assert answer(gone) == 'There is no answer yet: gn, the baseline, has no finished run.'
    gone = report.summarize([run(GN, 0, 45.0), missing(NC, 0)])
    assert answer(gone) == 'There is no answer yet: nc has no finished run.'
    assert answer(report.summarize([run(GN, 0, 45.0)])) == (
        'gn reaches 45.00 in top-1 accuracy (%), without a comparison.'
    )
    apart = report.summarize([run(GN, 0, 45.0), run(NC, 1, 45.0)])
    assert answer(apart) == 'nc and gn cannot be compared: they have no seed in common.'
    bare = run(GN, 0, 45.0)
    bare.validations = []
    assert (
        answer(report.summarize([bare])) == 'There is no answer: the trainings recorded no metric.'
    )


def test_the_answer_for_several_configs_is_corrected_by_holm():
    values = {
        'clear': [v + 5 + 0.1 * i for i, v in enumerate(GN_TOP1)],
        'mixed': [v + (-1) ** i for i, v in enumerate(GN_TOP1)],
        'short': [45.0],
        'bad': [math.nan] * 6,
    }
    runs = [run(GN, seed, value) for seed, value in enumerate(GN_TOP1)]
    for name, top1 in values.items():
        runs += [run(f'configs/{name}.py', seed, value) for seed, value in enumerate(top1)]
    # Without 'mixed', which is tested too, p of 'clear' would be 0.031.
    assert answer(report.summarize(runs)) == (
        'Against gn in top-1 accuracy (%): clear is better, with weak evidence (+5.25); '
        'mixed shows no clear difference (+0.00); short has no verdict (+5.00, 1 pair of seeds); '
        'bad cannot be compared.'
    )


def test_lower_is_better_for_losses():
    low = [run(NC, seed, 40.0, val_loss=(1.0, 0.2)) for seed in (0, 1)]
    sentences = verdicts(report.summarize([run(GN, 0, 40.0), run(GN, 1, 40.0), *low]))
    assert '0.600 lower than the baseline (better)' in sentences[1]


def test_unequal_conditions_are_caveats():
    runs = [run(GN, 0, 40.0), run(NC, 0, 41.0, device='H', threads=1, commit='bad+dirty')]
    runs[0].record.load, runs[0].record.cores = 2.4, 2
    runs[1].record.load, runs[1].record.cores = 6.8, 2
    said = '\n'.join(caveats(report.summarize(runs), jobs=2))
    assert 'different devices' in said
    assert 'CPU x, H' in said
    assert 'CPU threads' in said
    assert 'commits of nc_plugins (c0ffee, bad+dirty)' in said
    assert 'uncommitted changes' in said
    assert 'Up to 2 runs shared the machine' in said
    assert '1 of 2 runs ended on a machine with more work than cores (load up to 6.8 on 2)' in said
    assert 'torch versions' not in said
    assert caveats(report.summarize([run(GN, 0, 40.0)])) == []
