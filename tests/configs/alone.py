"""Configs in processes of their own that have not imported nc_plugins.

A script alone_<task>.py imports what its configs need but nc_plugins, which takes seconds, and
answers for each config from a fork of itself. ``ask`` runs such a script, ``answer`` is its main
function, ``opened`` what each of them begins with.
"""

import json
import os
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[2]
FULL_SIZE = bool(os.environ.get('NC_FULL_SIZE'))  # the full-size configs at their own size


def ask(task: str, names: list[str], *arguments: str, **env: str) -> dict[str, dict]:
    """name -> what alone_<task>.py reports of configs/<task>/<name>.py."""
    command = [sys.executable, str(Path(__file__).with_name(f'alone_{task}.py')), *arguments]
    files = [Path(name).name for name in names]
    command += [str(ROOT / 'configs' / task / f'{file}.py') for file in files]
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', **env}
    limit = 7200 if FULL_SIZE else 900
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    assert [report['name'] for report in reports] == files
    return dict(zip(names, reports, strict=True))


def answer(report, *arguments: str) -> None:
    """Print ``report(path, *arguments)`` as a line of JSON for each config on the command line."""
    import torch

    torch.set_num_threads(1)
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


def opened(path: str):
    """The config, its scope entered, and the first facts about it."""
    from mmengine.config import Config
    from mmengine.registry import HOOKS, init_default_scope

    found = {'name': Path(path).stem, 'absent_before': 'nc_plugins' not in sys.modules}
    cfg = Config.fromfile(path)
    found['present_after'] = 'nc_plugins' in sys.modules
    init_default_scope(cfg.default_scope)
    found['hooks'] = [hook.type for hook in cfg.custom_hooks if HOOKS.get(hook.type) is not None]
    return cfg, found


def census(model) -> dict[str, int]:
    from nc_plugins import layer_census

    return {kind: count for kind, count in layer_census(model).items() if count}


def check_loads(report: dict) -> None:
    """It registers what it needs by itself."""
    assert report['absent_before'] and report['present_after']
    assert report['hooks'] == ['NCCensusHook', 'RunRecordHook', 'ShortHistoryHook']
