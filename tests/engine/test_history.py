"""ShortHistoryHook limits the training scalars and nothing else."""

from types import SimpleNamespace

import pytest

pytest.importorskip('mmengine')
from mmengine.logging import MessageHub

from nc_plugins.engine.history import ShortHistoryHook


def test_only_training_scalars_are_kept_short():
    hub = MessageHub.get_instance('test_history')
    runner = SimpleNamespace(message_hub=hub)
    hook = ShortHistoryHook(keep=3)
    hook.before_train(runner)
    for step in range(10):
        hub.update_scalar('train/loss', float(step))
        hub.update_scalar('val/loss', float(step))
        # The first index of a resumed training is not 0.
        hook.after_train_iter(runner, batch_idx=step + 7)
    assert hub.get_scalar('train/loss').data[0].tolist() == [7.0, 8.0, 9.0]
    assert hub.get_scalar('train/loss').mean(2) == 8.5
    assert len(hub.get_scalar('val/loss').data[0]) == 10


@pytest.mark.parametrize('keep', [0, -1, 2.0, None])
def test_keep_must_be_a_positive_integer(keep):
    with pytest.raises(ValueError, match='keep must be an integer >= 1'):
        ShortHistoryHook(keep=keep)
