"""Time and memory of the systems on one case, the systems taking turns."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from cases import Case, Conv, Model
from systems import Options, Work, images, work

WARMUP = 3  # rounds that do not count
PROCESSES = 3  # in which the peak memory of a step is measured, each fresh

Figures = dict[str, dict[str, list[float]]]  # mode or metric -> system -> a number a round


def order(round_: int, count: int) -> list[int]:
    """Who runs when: rotated from round to round, each behind another neighbour than before.

    A plain rotation would leave every system behind the same neighbour, and so with what that one
    leaves in caches and heap. In this square (E. J. Williams, 1949) each stands once at each place
    in ``count`` rounds and, in twice as many, equally often right behind each other one.
    """
    zigzag = [(i + 1) // 2 if i % 2 else -(i // 2) for i in range(count)]
    row = [(step + round_) % count for step in zigzag]
    return row[::-1] if (round_ // count) % 2 else row


class Clock:
    """Times one turn; on CUDA with events, after a flush of the L2 cache.

    ``hide_launch``: the GPU is kept busy until the kernels are queued, as it is in the middle of a
    network, so that kernels are measured. Otherwise launches count, as they do in a whole step.
    """

    def __init__(self, device: str, hide_launch: bool) -> None:
        self.cuda, self.hide_launch = device == 'cuda', hide_launch
        if self.cuda:
            self.flushed = torch.empty(2**28, dtype=torch.uint8, device=device)  # > any L2

    def ready(self) -> None:
        if self.cuda:
            self.flushed.zero_()
            if self.hide_launch:
                torch.cuda._sleep(4_000_000)  # cycles, some 2 ms
            else:
                torch.cuda.synchronize()

    def mark(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start, end) -> float:
        """Milliseconds."""
        if not self.cuda:
            return 1e3 * (end - start)
        end.synchronize()
        return start.elapsed_time(end)


def turn(work: Work, clock: Clock, training: bool) -> dict[str, float]:
    """Milliseconds by mode."""
    work.clear()
    clock.ready()
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
) -> Figures:
    """Milliseconds of each of ``modes`` among fwd, bwd and train; the others are left alone."""
    x = images(case, options)
    works = [work(name, case, options, x) for name in names]
    clock = Clock(options.device, hide_launch=isinstance(case, Conv))
    taken: Figures = {}
    for training, possible in ((False, ('fwd',)), (True, ('bwd', 'train'))):
        wanted = [mode for mode in possible if mode in modes]
        if not wanted:
            continue
        taken |= {mode: {name: [] for name in names} for mode in wanted}
        for each in works:
            each.module.train(training)
        gc.collect()
        gc.disable()
        for i in range(WARMUP + rounds):
            for place in order(i, len(names)):
                result = turn(works[place], clock, training)
                for mode in wanted if i >= WARMUP else ():
                    taken[mode][names[place]].append(result[mode])
        gc.enable()
    return taken


def memory(case: Case, names: Sequence[str], options: Options) -> Figures:
    """Bytes: 'kept', and 'peak' of a model's training step."""
    taken: Figures = {'kept': {name: [kept(name, case, options)] for name in names}}
    if isinstance(case, Model):
        taken['peak'] = {name: [] for name in names}
        for i in range(PROCESSES):
            for place in order(i, len(names)):
                with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as process:
                    result = process.submit(peak, names[place], case, options).result()
                taken['peak'][names[place]].append(result)
    return taken


def kept(name: str, case: Case, options: Options) -> int:
    """Bytes that autograd keeps from forward to backward: each storage once, no parameters.

    The input counts, and so does any copy made of a weight. What an operator would hide from
    torch.autograd.graph.saved_tensors_hooks is not seen here, but in the peak.
    """
    job = work(name, case, options, images(case, options))
    job.finish(job.forward())  # a pair may join in its first step
    job.clear()
    own = {parameter.untyped_storage().data_ptr() for parameter in job.module.parameters()}
    storages = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = job.forward()
    del out
    return sum(storage.nbytes() for at, storage in storages.items() if at not in own)


def peak(name: str, case: Model, options: Options) -> int:
    """Bytes that training steps take at most beyond model and input; wants a fresh process.

    CUDA: of the allocator. CPU: from the resident size before to its high-water mark (proc(5):
    VmHWM, reset by writing 5 to clear_refs), so that what libraries allocate for themselves counts.
    Three steps, because holes that the second does not fit into belong to what a training takes.
    """
    torch.set_num_threads(options.threads)
    job = work(name, case, options, images(case, options))
    # Code is loaded in the first step, and is not the memory of a step.
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
    """Begin anew with what is in use now, in bytes."""
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # freed memory must not serve the step unseen
    Path('/proc/self/clear_refs').write_text('5')
    return _status('VmRSS')


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == 'cuda' else _status('VmHWM')


def _status(key: str) -> int:
    """A size in /proc/self/status, in bytes."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key + ':'))
