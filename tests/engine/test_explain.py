"""The sentence for an exception: the key of the config behind it, and the file of the traceback."""

import pytest

pytest.importorskip('mmengine')
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from torch import nn

from nc_plugins.datasets.loading import DataError
from nc_plugins.engine.explain import explained
from nc_plugins.engine.usage import UsageError, one_line


@MODELS.register_module(force=True)
class ExplainedOuter(nn.Module):
    def __init__(self, inner, other=None):
        super().__init__()
        self.inner = MODELS.build(inner)
        self.other = MODELS.build(other) if other else None


@MODELS.register_module(force=True)
class ExplainedInner(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, 2)

    def forward(self, x):
        return self.fc(x)


@HOOKS.register_module(force=True)
class ExplainedHook(Hook):
    def before_run(self, runner):
        if runner.stages != [1]:
            raise AssertionError


def sentence(action, tmp_path, **config):
    cfg = Config({'work_dir': str(tmp_path / 'w'), **config})
    with pytest.raises(UsageError) as caught, explained(cfg):
        action(cfg)
    return str(caught.value)


def build(cfg):
    return MODELS.build(cfg.model)


def model(other=None, **inner):
    inner = {'type': 'ExplainedInner', 'width': 3, **inner}
    return {'type': 'ExplainedOuter', 'inner': inner, 'other': other}


@pytest.mark.parametrize(
    ('config', 'words'),
    [
        (
            model(depth=3),
            "unknown key 'depth' for ExplainedInner in the config (model.inner.depth)",
        ),
        (model(type='ExplaindInner'), "did you mean 'ExplainedInner'? (model.inner.type)"),
        (model(type='os.nothing'), "unknown type 'os.nothing': it is not in the mmengine::model"),
        (model(width='a'), 'model.inner (ExplainedInner): TypeError: '),
        (model(width=-5), 'model.inner (ExplainedInner): RuntimeError: '),
        (model(other={'type': 'ExplainedInner'}), "lacks the key 'width' in the config (model."),
        (model(other=3), 'model (ExplainedOuter): TypeError: cfg should be a dict'),
    ],
)
def test_the_key_behind_a_failed_build(config, words, tmp_path):
    text = sentence(build, tmp_path, model=config)
    assert words in text
    assert text.endswith(f'; the traceback is in {tmp_path / "w" / "error.log"}')
    log = (tmp_path / 'w' / 'error.log').read_text()
    assert log.count('Traceback (most recent call last)') == 1
    assert 'in build_from_cfg' in log


def test_the_key_behind_a_failed_call(tmp_path):
    def forward(cfg):
        import torch

        build(cfg).inner(torch.zeros(1, 4))

    text = sentence(forward, tmp_path, model=model())
    assert text.startswith('model.inner (ExplainedInner): RuntimeError: mat1 and mat2')

    hook = HOOKS.build({'type': 'ExplainedHook'})
    runner = type('Runner', (), {'stages': []})
    hooks = [{'type': 'ExplainedHook'}]
    text = sentence(lambda cfg: hook.before_run(runner), tmp_path, custom_hooks=hooks)
    wanted = 'custom_hooks.0 (ExplainedHook): AssertionError: raise AssertionError'
    assert text.startswith(wanted)
    assert (tmp_path / 'w' / 'error.log').read_text().count('Traceback') == 2  # both are kept


def test_two_keys_of_one_class_are_both_named(tmp_path):
    def fail(cfg):
        MODELS.build(cfg.a)

    part = {'type': 'ExplainedInner', 'width': -5}
    text = sentence(fail, tmp_path, a=part, b=part)
    assert text.startswith('a (ExplainedInner) or b (ExplainedInner): ')


def raiser(error):
    def action(cfg):
        raise error

    return action


def test_messages_of_this_package_need_no_traceback(tmp_path):
    assert sentence(raiser(UsageError('a is wrong')), tmp_path) == 'a is wrong'
    assert sentence(raiser(DataError('image x is empty')), tmp_path) == 'image x is empty'
    assert not (tmp_path / 'w').exists()


def test_an_error_without_a_key_is_a_sentence_too(tmp_path):
    text = sentence(raiser(ZeroDivisionError('division by zero')), tmp_path)
    assert text.startswith(
        'the run failed: ZeroDivisionError: division by zero; the traceback is in'
    )


def test_deformable_convolutions_stay_and_the_sentence_says_how(tmp_path):
    text = sentence(raiser(AssertionError('conv_cfg must be None for DCN')), tmp_path)
    assert 'take conv_cfg and norm_cfg of NC out' in text and 'or set dcn=None' in text


def test_a_work_dir_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / 'w').write_text('a file')
    text = sentence(raiser(ZeroDivisionError('division by zero')), tmp_path)
    assert 'the traceback cannot be written' in text


def test_ctrl_c_is_no_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), explained(Config({'work_dir': str(tmp_path)})):
        raise KeyboardInterrupt


def test_the_traceback_of_a_worker_is_left_out():
    text = (
        'Caught KeyError in DataLoader worker process 0.\nOriginal Traceback (most recent call '
        "last):\n  File \"x.py\", line 1, in f\n    return d['a']\nKeyError: 'a'\n"
    )
    assert one_line(RuntimeError(text)) == "KeyError: 'a'"
    assert one_line(KeyError('a is missing\nin b')) == 'a is missing in b'
