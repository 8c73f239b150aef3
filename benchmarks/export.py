"""Exported ResNet-18 in onnxruntime, NC beside GroupNorm, as tables for docs/export.md.

    python benchmarks/export.py [--runs 100]

Both networks run in one process on one thread, in turns. The script prints wall time and processor
time, because other processes on the machine disturb the first. The second table has the error of
one exported layer for patches with a large mean.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import onnx
import onnxruntime
import torch
from torch import nn
from torchvision.models import resnet18

import nc_plugins
from nc_plugins.layers import NCAffine, NCConv2d
from nc_plugins.ops import reference


def resnet(norm: str) -> nn.Module:
    torch.manual_seed(0)
    if norm == 'GroupNorm':
        return resnet18(norm_layer=lambda channels: nn.GroupNorm(32, channels)).eval()
    network = resnet18(norm_layer=NCAffine)
    for parent in list(network.modules()):
        for name, conv in list(parent.named_children()):
            if isinstance(conv, nn.Conv2d):
                steps = (conv.kernel_size, conv.stride, conv.padding)
                layer = NCConv2d(conv.in_channels, conv.out_channels, *steps, bias=False)
                layer.load_state_dict(conv.state_dict())
                setattr(parent, name, layer)
    return network.eval()


def session(model: nn.Module, file: Path, example: torch.Tensor):
    """The exported model in onnxruntime, as a function, and its number of nodes."""
    nc_plugins.export(model, file, example)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    run = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    name = run.get_inputs()[0].name
    return lambda x: run.run(None, {name: x.numpy()})[0], len(onnx.load(file).graph.node)


def error(ours, truth: torch.Tensor) -> float:
    """The largest deviation, divided by the largest entry."""
    ours = torch.as_tensor(ours, dtype=torch.float64)
    return ((ours - truth).abs().max() / truth.abs().max()).item()


def speed(folder: Path, runs: int) -> None:
    x = torch.randn(1, 3, 224, 224)
    models = {norm: resnet(norm) for norm in ('GroupNorm', 'NC')}
    sessions = {norm: session(m, folder / f'{norm}.onnx', x) for norm, m in models.items()}
    times = {norm: [] for norm in models}
    for _ in range(runs):
        for norm, (run, _) in sessions.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run(x)
            times[norm].append((time.perf_counter() - wall, time.process_time() - cpu))
    walls, cpus = ({n: median(t[i] for t in times[n]) for n in times} for i in (0, 1))
    print('| ResNet-18 at 224 | nodes | error | wall, ms | ratio | processor, ms | ratio |')
    print('| --- | --- | --- | --- | --- | --- | --- |')
    for norm, (run, nodes) in sessions.items():
        with torch.no_grad():
            wrong = error(run(x), models[norm](x).double())
        wall, cpu = walls[norm], cpus[norm]
        ratios = wall / walls['GroupNorm'], cpu / cpus['GroupNorm']
        print(
            f'| {norm} | {nodes} | {wrong:.1e} | {wall * 1e3:.1f} | {ratios[0]:.3f} '
            f'| {cpu * 1e3:.1f} | {ratios[1]:.3f} |'
        )


def accuracy(folder: Path) -> None:
    print('\n| layer | mean/std | export | definition in float32 |')
    print('| --- | --- | --- | --- |')
    for channels, kernel in ((3, 7), (64, 3), (512, 3), (512, 1)):
        torch.manual_seed(0)
        layer = NCConv2d(channels, 64, kernel, bias=False)
        run, _ = session(layer, folder / 'layer.onnx', torch.randn(1, channels, 12, 12))
        for mean in (1, 10, 100, 1000):
            x, weight = torch.randn(1, channels, 12, 12) + mean, layer.weight.detach()
            truth = reference.nc_conv2d(x.double(), weight.double())
            definition = error(reference.nc_conv2d(x, weight), truth)
            name = f'{kernel}x{kernel}, {channels} channels'
            print(f'| {name} | {mean} | {error(run(x), truth):.1e} | {definition:.1e} |')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--runs', type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        speed(Path(folder), args.runs)
        accuracy(Path(folder))


if __name__ == '__main__':
    sys.exit(main())
