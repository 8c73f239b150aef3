"""The work list chooses learning rates by validation and reads the test images once."""

from pathlib import Path

import pytest

from studies.worklist import (
    PAPER_RATE,
    QUESTIONS,
    TEST,
    VALIDATION,
    Question,
    Setting,
    Trial,
    best_rate,
    rates_of,
    trials,
    tuning_trial,
)

CONFIGS = Path(__file__).parents[2] / 'studies/configs'
GN, NC = Setting('gn'), Setting('nc')


def accuracies(setting, **by_rate):
    return {
        tuning_trial(setting, float(rate.removeprefix('at'))).name: value
        for rate, value in by_rate.items()
    }


def tuned(setting, rate):
    """Accuracies of a tuning whose best rate is ``rate``, an inner one."""
    return {tuning_trial(setting, r).name: 50 - abs(r - rate) for r in rates_of(setting, {})}


def test_the_best_of_the_first_rates_is_taken_if_it_is_an_inner_one():
    known = accuracies(GN, **{'at0.003': 30, 'at0.01': 40, 'at0.03': 35, 'at0.1': 10})
    assert rates_of(GN, known) == (0.003, 0.01, 0.03, 0.1)
    assert best_rate(GN, known) == 0.01


@pytest.mark.parametrize(('best', 'added'), [('at0.1', 0.3), ('at0.003', 0.001)])
def test_a_best_rate_at_an_end_adds_the_next_one(best, added):
    known = accuracies(GN, **{'at0.003': 30, 'at0.01': 30, 'at0.03': 30, 'at0.1': 30, best: 40})
    assert added in rates_of(GN, known) and len(rates_of(GN, known)) == 5
    assert best_rate(GN, known) is None  # the new rate has not run yet
    assert best_rate(GN, known | accuracies(GN, **{f'at{added}': 35})) == float(best[2:])
    assert best_rate(GN, known | accuracies(GN, **{f'at{added}': 45})) is None


def test_no_test_images_before_every_rate_is_chosen():
    question = Question('q', (GN, NC), seeds=2)
    some = tuned(GN, 0.03)
    assert {trial.split for trial in trials(question, some)} == {VALIDATION}
    final = [t for t in trials(question, some | tuned(NC, 0.01)) if t.split == TEST]
    assert final == [
        Trial(GN, 0.03, 0, TEST), Trial(NC, 0.01, 0, TEST),
        Trial(GN, 0.03, 1, TEST), Trial(NC, 0.01, 1, TEST),
    ]  # fmt: skip
    seeds = {t.seed for t in final}
    assert not seeds & {t.seed for t in trials(question, {})}, 'tuning and test share no seed'


def test_the_rate_of_the_paper_is_trained_once():
    question = Question('q', (GN, NC), seeds=1, paper_rate=True)
    final = [t for t in trials(question, tuned(GN, 0.03) | tuned(NC, PAPER_RATE)) if t.seed == 0]
    assert [(t.setting, t.rate) for t in final] == [(GN, 0.03), (NC, PAPER_RATE), (GN, PAPER_RATE)]


def test_only_final_trainings_read_the_test_images():
    assert any('split=test' in word for word in Trial(GN, 0.01, 0, TEST).options)
    assert not any('test' in word for word in tuning_trial(GN, 0.01).options)


def test_every_config_of_the_list_exists_and_names_are_unique():
    settings = [setting for question in QUESTIONS for setting in question.settings]
    assert {setting.config for setting in settings} == {p.stem for p in CONFIGS.glob('*.py')}
    names = [question.name for question in QUESTIONS]
    assert len(names) == len(set(names))
