"""The processes of one training: how they find each other, and how they end."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import init_dist, is_distributed, is_main_process
from mmengine.logging import print_log
from mmengine.utils.dl_utils import set_multi_processing

from .usage import UsageError, one_line

# For each launcher: what starts the processes, and the environment variables with the number of a
# process among all and on its machine.
LAUNCHERS = {
    'pytorch': ('tools/dist_train.sh', 'RANK', 'LOCAL_RANK'),
    'slurm': ('tools/slurm_train.sh', 'SLURM_PROCID', 'SLURM_LOCALID'),
    'mpi': ('mpirun', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
LOST_WORKER = re.compile(r'DataLoader worker \(pid.*?(\d+).*?\) (is killed|exited unexpectedly)')
LOST_RANK = re.compile(r'gloo.*(by peer|Broken pipe|Timed out)|remote process exited')


@contextlib.contextmanager
def processes(cfg: Config) -> Iterator[None]:
    """Let a Runner of ``cfg`` work in this process of ``cfg.launcher``, and clean up afterwards.

    Raises: UsageError if the launcher did not start this process, if there are fewer GPUs than
        processes, or if another process of the training has ended or cannot be reached.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher != 'none':
        _check_launcher(launcher)
    try:
        if launcher != 'none' and get_device() == 'cpu':
            _join_on_cpu(cfg)
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if sentence := _lost_process(_cause(error)):
            raise UsageError(sentence) from error
        raise
    finally:
        # Without this call some processes abort when the interpreter exits.
        if is_distributed():
            torch.distributed.destroy_process_group()


def _check_launcher(launcher: str) -> None:
    starter, rank, local_rank = LAUNCHERS[launcher]
    if rank not in os.environ:
        raise UsageError(
            f'--launcher {launcher} needs the environment variable {rank}: start the processes '
            f'with {starter}'
        )
    count = torch.cuda.device_count()
    if count and int(os.environ.get(local_rank, 0)) >= count:
        raise UsageError(
            f'there are more processes on this machine than GPUs, which are {count}: start one '
            'process for each GPU'
        )


def _join_on_cpu(cfg: Config) -> None:
    """Initialise torch.distributed and set up DistributedDataParallel, both without a GPU.

    mmengine selects a GPU in both places, whatever the backend is.
    """
    env = cfg.get('env_cfg') or {}
    dist_cfg = dict(env.get('dist_cfg') or {})
    replaced = dist_cfg.get('backend', 'nccl') == 'nccl'
    if replaced:
        dist_cfg['backend'] = 'gloo'
    # Before init_dist, which would choose another start method than the Runner.
    set_multi_processing(**(env.get('mp_cfg') or {}), distributed=True)
    # init_dist calls torch.cuda.set_device, which does nothing if the number is negative.
    name = LAUNCHERS[cfg.launcher][2]
    local_rank, os.environ[name] = os.environ.get(name, '0'), '-1'
    init_dist(cfg.launcher, **dist_cfg)
    os.environ[name] = os.environ['LOCAL_RANK'] = local_rank
    if replaced and is_main_process():
        print_log('There is no GPU, so the processes use the backend gloo, not nccl', 'current')

    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = dict(  # mmengine's defaults
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    cfg.model_wrapper_cfg.setdefault('device_ids', None)


def _cause(error: Exception) -> Exception:
    """The error that torch's signal handler raises about a killed worker process, if any.

    A broken connection to the worker can show before the signal arrives.
    """
    if isinstance(error, RuntimeError):
        return error
    try:
        time.sleep(1)
    except RuntimeError as cause:
        return cause
    return error


def _lost_process(error: Exception) -> str | None:
    """A sentence if the error means that another process cannot be reached, else None."""
    text = one_line(error)
    if isinstance(error, (torch.distributed.DistNetworkError, torch.distributed.DistStoreError)):
        return f'the processes of this training cannot connect to each other: {text[:300]}'
    if match := LOST_WORKER.search(text):
        return (
            f'the data loading process {match[1]} was killed, maybe because memory ran out; with '
            'fewer num_workers the training needs less, and --resume continues it'
        )
    if LOST_RANK.search(text):
        return (
            'another process of this training has ended or cannot be reached, so this one ends '
            'too; --resume continues the training'
        )
    return None
