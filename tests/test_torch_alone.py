"""The package works with torch as the only other package, and installs without a compiler."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


TORCH_ALONE = """
import sys
names = ['mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'torchvision', 'psutil', 'rich']
names += ['sklearn', 'matplotlib', 'resource', 'fcntl']
for name in names:
    sys.modules[name] = None  # every import of it raises ModuleNotFoundError
try:
    import mmengine
except ModuleNotFoundError:
    pass
else:
    raise SystemExit('mmengine was imported, so this program tests nothing')

import torch
import nc_plugins
from nc_plugins.layers import NCConv2d

out = NCConv2d(3, 4, 3, padding=1)(torch.randn(2, 3, 8, 8))
out.square().sum().backward()
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
nc_plugins.convert(model)[0](torch.randn(2, 3, 8, 8))
assert isinstance(model[0], NCConv2d)
print(nc_plugins.__version__, tuple(out.shape))
"""


def test_the_package_works_with_torch_alone():
    command = [sys.executable, '-W', 'ignore', '-c', TORCH_ALONE]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith('(2, 4, 8, 8)')


def test_setup_reports_a_backend_that_it_cannot_build():
    environment = {**os.environ, 'CXX': '/no/compiler'}
    command = [sys.executable, 'setup.py', '--name']
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == 'nc_plugins'
    (message,) = (line for line in result.stderr.splitlines() if 'was not built' in line)
    assert '/no/compiler' in message and 'pip install -v' in message
