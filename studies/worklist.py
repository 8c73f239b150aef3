"""The trainings of docs/results/protocol.md, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

VALIDATION, TEST = 'validation', 'test'

# All learning rates that a training may have.
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
PAPER_RATE = 0.01
# Not among the seeds of the final trainings, which begin at 0.
TUNING_SEED = 100

MAIN = ('gn', 'gn-ws', 'bn', 'nc', 'nc-ws')
OTHERS = ('ln', 'in', 'pn', 'evonorm', 'frn', 'none')
VARIANTS = ('nc_no-center', 'nc_no-scale', 'nc_eps-1e-2', 'nc_eps-1e-8', 'nc_reflect', 'nc_gn')
# The learning rates of adaptive optimisers are smaller.
OPTIMIZERS = {'momentum': 1e-3, 'adam': 1e-4, 'adamw': 1e-4, 'rmsprop': 1e-4}


@dataclass(frozen=True)
class Setting:
    """A method under the conditions of a question.

    Attributes:
        config: name of a file in studies/configs.
        batch: images in a batch.
        first_rate: the smallest of the four learning rates that are tried first.
    """

    config: str
    batch: int = 2
    first_rate: float = 3e-3


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        split: images that measure it. The validation images choose the learning rate. The test
            images are read once, at the end of a final training.
    """

    setting: Setting
    rate: float
    seed: int
    split: str

    @property
    def name(self) -> str:
        setting = self.setting
        return f'{setting.config}_b{setting.batch}_lr{self.rate:g}_seed{self.seed}_{self.split}'

    @property
    def options(self) -> list[str]:
        """Words for --cfg-options of tools/train.py."""
        options = [
            f'randomness.seed={self.seed}',
            f'train_dataloader.batch_size={self.setting.batch}',
            f'optim_wrapper.optimizer.lr={self.rate:g}',
        ]
        if self.split == TEST:
            options += [
                'val_dataloader.dataset.split=test',
                'val_dataloader.dataset.skip=0',
                'val_dataloader.dataset.per_class=None',
                'train_cfg.val_interval=1000',  # mmengine also validates after the last epoch
            ]
        return options


@dataclass(frozen=True)
class Question:
    """Settings that are compared with each other.

    Attributes:
        name: as in the protocol.
        settings: the first is the baseline.
        seeds: number of final trainings of each setting at its best learning rate.
        paper_rate: also train all seeds at the learning rate of the paper.
    """

    name: str
    settings: tuple[Setting, ...]
    seeds: int
    paper_rate: bool = False


QUESTIONS = (
    Question('batch2', tuple(map(Setting, MAIN)), seeds=6, paper_rate=True),
    *(
        Question(f'batch{n}', tuple(Setting(c, n) for c in ('gn', 'bn', 'nc', 'nc-ws')), seeds=3)
        for n in (32, 8, 128)
    ),
    Question('others', tuple(map(Setting, ('gn', *OTHERS))), seeds=3),
    *(
        Question(name, tuple(Setting(f'{c}_{name}', 2, rate) for c in ('gn', 'nc')), seeds=3)
        for name, rate in OPTIMIZERS.items()
    ),
    Question('variants', tuple(map(Setting, ('nc', *VARIANTS))), seeds=3),
    *(
        Question(f'batch{n}', tuple(Setting(c, n) for c in ('gn', 'bn', 'nc', 'nc-ws')), seeds=3)
        for n in (4, 1)
    ),
)


def trials(question: Question, accuracy: Mapping[str, float]) -> Iterator[Trial]:
    """The trainings that ``question`` needs, as far as the results so far tell.

    Args:
        accuracy: top-1 accuracy of the finished trainings by name, in percent.
    """
    tuned = {}
    for setting in question.settings:
        rates = rates_of(setting, accuracy)
        yield from (tuning_trial(setting, rate) for rate in rates)
        tuned[setting] = best_rate(setting, accuracy)
    if None in tuned.values():
        return
    # One seed of all settings, then the next: paired results are useful at any moment.
    for seed in range(question.seeds):
        for setting, rate in tuned.items():
            yield Trial(setting, rate, seed, TEST)
    if question.paper_rate:
        for seed in range(question.seeds):
            for setting, rate in tuned.items():
                if rate != PAPER_RATE:
                    yield Trial(setting, PAPER_RATE, seed, TEST)


def tuning_trial(setting: Setting, rate: float) -> Trial:
    return Trial(setting, rate, TUNING_SEED, VALIDATION)


def rates_of(setting: Setting, accuracy: Mapping[str, float]) -> tuple[float, ...]:
    """The learning rates to try: the first four, and more while the best is at an end."""
    low = RATES.index(setting.first_rate)
    high = low + 3
    while True:
        rates = RATES[low : high + 1]
        known = [accuracy.get(tuning_trial(setting, rate).name) for rate in rates]
        if None in known:
            return rates
        best = known.index(max(known))
        if best == 0 and low > 0:
            low -= 1
        elif best == len(rates) - 1 and high < len(RATES) - 1:
            high += 1
        else:
            return rates


def best_rate(setting: Setting, accuracy: Mapping[str, float]) -> float | None:
    """The learning rate of the best validation accuracy, None before all are known."""
    rates = rates_of(setting, accuracy)
    known = [accuracy.get(tuning_trial(setting, rate).name) for rate in rates]
    return None if None in known else rates[known.index(max(known))]
