"""Load configs in a process that has not imported nc_plugins, and report on their models.

A script report_<task>.py imports the libraries that its configs need, which takes seconds, but not
nc_plugins. For each config it forks, and the child prints one report. A test calls :func:`ask`,
which runs the script. The script calls :func:`answer` with a function that begins with
:func:`open_config`.
"""

import copy
import json
import os
import subprocess
import sys
import traceback
import warnings
from functools import cache
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'
FULL_SIZE = 'FULL_SIZE' in os.environ
STEPS = os.environ.get('STEPS', '').split(',')


def load(name: str) -> Config:
    """The config ``configs/<name>.py``; its custom imports are not executed."""
    return copy.deepcopy(_load(name))


@cache
def _load(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py', import_custom_modules=False)


def ask(
    task: str, names: list[str], *arguments: str, steps: list[str] = (), full_size: bool = False
) -> dict[str, dict]:
    """Run report_<task>.py on the configs ``names`` of ``task``.

    Args:
        arguments: for the script.
        steps: names of the configs that also take a training step.
        full_size: take the step at the size of the config instead of a reduced one.

    Returns:
        The report of each config by name.
    """
    script = Path(__file__).with_name(f'report_{task}.py')
    files = [str(CONFIGS / task / f'{name}.py') for name in names]
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'STEPS': ','.join(steps)}
    if full_size:
        env['FULL_SIZE'] = '1'
    done = subprocess.run(
        [sys.executable, str(script), *arguments, *files],
        env=env,
        capture_output=True,
        text=True,
        timeout=7200 if full_size else 900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    assert [report['name'] for report in reports] == names
    return dict(zip(names, reports, strict=True))


def answer(report, *arguments: str) -> None:
    """Print ``report(path, *arguments)`` as a line of JSON for each config on the command line."""
    warnings.simplefilter('ignore')
    for path in sys.argv[1 + len(arguments) :]:
        child = os.fork()
        if child == 0:
            try:
                print(json.dumps(report(path, *arguments), default=bool), flush=True)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f'{path}: exit status {status}')


def open_config(path: str) -> tuple[Config, dict]:
    """Load a config, enter its default scope, and start its report."""
    from mmengine.registry import HOOKS, init_default_scope

    report = {'name': Path(path).stem, 'absent_before': 'nc_plugins' not in sys.modules}
    cfg = Config.fromfile(path)
    report['present_after'] = 'nc_plugins' in sys.modules
    init_default_scope(cfg.default_scope)
    report['hooks'] = [hook.type for hook in cfg.custom_hooks if HOOKS.get(hook.type) is not None]
    return cfg, report


def census(model) -> dict[str, int]:
    """The number of layers of each kind in ``model``."""
    from nc_plugins import layer_census

    return {kind: count for kind, count in layer_census(model).items() if count}


def check_registration(report: dict) -> None:
    """Assert that the config itself registered what it needs."""
    assert report['absent_before'] and report['present_after']
    assert report['hooks'] == [
        'NCCensusHook', 'RunRecordHook', 'DataCheckHook', 'ShortHistoryHook'
    ]  # fmt: skip
