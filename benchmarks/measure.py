"""Time and memory of several systems on one case, measured in alternation."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from cases import Case, Conv, Model
from systems import Options, Work, images, trains, work

WARMUP = 3  # rounds that are run and not counted
PROCESSES = 3  # fresh processes in which the peak memory of a step is measured

Measurements = dict[str, dict[str, list[float]]]  # mode or metric -> system -> value per round


def order(round_: int, count: int) -> list[int]:
    """The order in which ``count`` systems run in one round.

    A system inherits caches and heap from the one that ran before it. A plain rotation would give
    it the same predecessor in every round. This is a Williams design (E. J. Williams, 1949): in
    ``count`` rounds each system runs once at each position, and in twice as many rounds it follows
    each other system equally often.
    """
    zigzag = [(i + 1) // 2 if i % 2 else -(i // 2) for i in range(count)]
    row = [(step + round_) % count for step in zigzag]
    return row[::-1] if (round_ // count) % 2 else row


class Clock:
    """Measures elapsed time; on CUDA with events, after flushing the L2 cache.

    Args:
        hide_launch: keep the GPU busy until all kernels are queued, as in the middle of a network,
            so that only the kernels are timed. Otherwise launches count, as in a whole step.
    """

    def __init__(self, device: str, hide_launch: bool) -> None:
        self.cuda, self.hide_launch = device == 'cuda', hide_launch
        if self.cuda:
            self.flushed = torch.empty(2**28, dtype=torch.uint8, device=device)  # > any L2

    def prepare(self) -> None:
        if self.cuda:
            self.flushed.zero_()
            if self.hide_launch:
                torch.cuda._sleep(4_000_000)  # cycles, about 2 ms
            else:
                torch.cuda.synchronize()

    def mark(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start, end) -> float:
        """Milliseconds between two marks."""
        if not self.cuda:
            return 1e3 * (end - start)
        end.synchronize()
        return start.elapsed_time(end)


def time_call(work: Work, clock: Clock, training: bool) -> dict[str, float]:
    """Milliseconds of one forward pass, or of forward and backward, by mode."""
    work.clear()
    clock.prepare()
    start = clock.mark()
    with torch.set_grad_enabled(training):
        out = work.forward()
    middle = clock.mark()
    if not training:
        return {'fwd': clock.between(start, middle)}
    work.finish(out)
    end = clock.mark()
    return {'train': clock.between(start, end), 'bwd': clock.between(middle, end)}


def times(
    case: Case, names: Sequence[str], modes: Sequence[str], rounds: int, options: Options
) -> Measurements:
    """Milliseconds of each of ``modes`` among fwd, bwd and train. Other modes are ignored."""
    x = images(case, options)
    works = {name: work(name, case, options, x) for name in names}
    calls = getattr(case, 'calls', 1)
    # Overhead consists of launches, so they must not be hidden.
    clock = Clock(options.device, hide_launch=isinstance(case, Conv) and calls == 1)
    measured: Measurements = {}
    for training, possible in ((False, ('fwd',)), (True, ('bwd', 'train'))):
        wanted = [mode for mode in possible if mode in modes]
        running = [name for name in names if trains(name) or not training]
        if not wanted or not running:
            continue
        measured |= {mode: {name: [] for name in running} for mode in wanted}
        for name in running:
            works[name].module.train(training)
        gc.collect()
        gc.disable()
        for i in range(WARMUP + rounds):
            for position in order(i, len(running)):
                name = running[position]
                found = [time_call(works[name], clock, training) for _ in range(calls)]
                for mode in wanted if i >= WARMUP else ():
                    measured[mode][name].append(median(result[mode] for result in found))
        gc.enable()
    return measured


def memory(case: Case, names: Sequence[str], options: Options) -> Measurements:
    """Bytes in training: 'kept' for backward, and for a model the 'peak' of a step."""
    names = [name for name in names if trains(name)]
    measured: Measurements = {'kept': {name: [kept(name, case, options)] for name in names}}
    if isinstance(case, Model):
        measured['peak'] = {name: [] for name in names}
        for i in range(PROCESSES):
            for position in order(i, len(names)):
                with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as process:
                    result = process.submit(peak, names[position], case, options).result()
                measured['peak'][names[position]].append(result)
    return measured


def kept(name: str, case: Case, options: Options) -> int:
    """Bytes that autograd keeps between forward and backward, without parameters.

    Each storage counts once, the input and copies of a weight included. A tensor that an operator
    hides from torch.autograd.graph.saved_tensors_hooks is missing here and is part of the peak.
    """
    job = work(name, case, options, images(case, options))
    own = {parameter.untyped_storage().data_ptr() for parameter in job.module.parameters()}
    storages = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage  # holding it keeps the address from being reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = job.forward()
    del out
    return sum(storage.nbytes() for at, storage in storages.items() if at not in own)


def peak(name: str, case: Model, options: Options) -> int:
    """Peak bytes of training steps beyond model and input. Needs a fresh process.

    CUDA: of the allocator. CPU: of the resident set, from VmHWM in /proc/self/status (proc(5);
    reset by writing 5 to clear_refs), so memory that libraries allocate counts too. Three steps
    run, because the heap may be fragmented after the first one.
    """
    torch.set_num_threads(options.threads)
    job = work(name, case, options, images(case, options))
    # The first step loads code, which is not memory of a step.
    small = replace(job, input=options.place(job.input[..., :32, :32].contiguous()))
    small.finish(small.forward())
    job.clear()
    gc.collect()
    before = _reset_peak(options.device)
    for _ in range(3):
        job.clear()
        job.finish(job.forward())
    return _peak(options.device) - before


def _reset_peak(device: str) -> int:
    """Reset the peak, and return the bytes in use now."""
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # so that the step cannot reuse freed memory uncounted
    Path('/proc/self/clear_refs').write_text('5')
    return _status('VmRSS')


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == 'cuda' else _status('VmHWM')


def _status(key: str) -> int:
    """A size in /proc/self/status, in bytes."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key + ':'))
