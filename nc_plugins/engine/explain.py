"""Turns every exception of a run into one sentence, and keeps its traceback in a file."""

from __future__ import annotations

import contextlib
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MessageHub

from nc_plugins.datasets.loading import DataError
from nc_plugins.layers.half_swap import HalfSwapError

from .config_keys import blamed, dicts, is_inside, named_classes, registered_names
from .safe_loading import CheckpointError
from .usage import UsageError, did_you_mean, one_line, type_name

LOG = 'error.log'
UNKNOWN_KEY = re.compile(r"([\w.<>]+)\(\) got an unexpected keyword argument '(\w+)'")
MISSING_KEY = re.compile(r'([\w.<>]+)\(\) missing \d+ required .*arguments?: (.+)')
CALLED = re.compile(r'([\w.<>]+)\(\) ')  # how the message of a wrong call begins
# What to do after messages of upstream that do not say it.
ADVICE = {
    'conv_cfg must be None for DCN': (
        '; deformable convolutions have no NC form: take conv_cfg and norm_cfg of NC out of this '
        'part and convert the model instead (--to NC), which leaves them, or set dcn=None and '
        'stage_with_dcn=(False, False, False, False) to replace them by NC'
    ),
}
UNKNOWN_TYPE = re.compile(r'(\S+) is not in the (.+?) registry')


@contextlib.contextmanager
def explained(cfg: Config) -> Iterator[None]:
    """Turn each exception in the block into a UsageError whose message is one sentence.

    The sentence names the key of ``cfg`` that led to the exception where it is known, and the file
    in the work dir that the traceback was appended to. Mistakes that this package reports itself
    need no traceback.
    """
    try:
        yield
    except UsageError:
        raise
    except (CheckpointError, HalfSwapError, DataError) as error:
        raise UsageError(getattr(error, 'sentence', None) or one_line(error)) from error
    except Exception as error:
        try:
            place = f'the traceback is in {_write_traceback(error, Path(cfg.work_dir))}'
        except OSError as problem:
            place = f'the traceback cannot be written ({problem})'
        raise UsageError(f'{explain(error, cfg)}; {place}') from error


def explain(error: Exception, cfg: Config) -> str:
    """A sentence for an exception that was not meant for the user, with the key behind it."""
    frames = traceback.extract_tb(error.__traceback__)
    text = one_line(error) if str(error) else frames[-1].line
    problem = f'{type(error).__name__}: {text}{ADVICE.get(text, "")}'
    found = dict(dicts(cfg))
    components = {key: value for key, value in found.items() if 'type' in value}
    keys = blamed(error, components)
    inner = [key for key in found if is_inside(key, keys)] if keys else list(found)
    if isinstance(error, TypeError) and (match := UNKNOWN_KEY.search(text)):
        name, unknown = match.groups()
        holders = [key for key in inner if unknown in found[key]]
        exact = [key for key in holders if key in components and _names(found[key], name)]
        untyped = [key for key in holders if key not in components]
        places = [f'{key}.{unknown}' for key in exact or untyped or holders]
        return f"unknown key '{unknown}' for {_class(name)} in the config{_listed(places or keys)}"
    if isinstance(error, TypeError) and (match := MISSING_KEY.search(text)):
        name, lacking = match.groups()
        places = [key for key in inner if key in components and _names(found[key], name)]
        return f'{_class(name)} lacks the key {lacking} in the config{_listed(places or keys)}'
    if match := UNKNOWN_TYPE.search(text):
        name, registry = match.groups()
        near = did_you_mean(name.rpartition('.')[2], registered_names(registry.split('::')[-1]))
        named = [key for key, value in components.items() if value['type'] == name]
        places = [f'{key}.type' for key in [k for k in named if k in inner] or named]
        return f"unknown type '{name}': it is not in the {registry} registry{near}{_listed(places)}"
    models = registered_names('model')
    if text.startswith('Failed to get'):  # mmengine: the type is no name at all
        strange = [key for key in inner if key in components and not named_classes(found[key])]
    elif text.startswith('Cannot find'):  # mmcv, with None in place of the type
        slots = [key for key in inner if key in components and key.endswith('_cfg')]
        strange = [key for key in slots if type_name(found[key]) not in models]
    else:
        strange = []
    if strange:
        name = found[strange[0]]['type']
        near = did_you_mean(str(name).rpartition('.')[2], models)
        return f"unknown type '{name}'{near}{_listed([f'{strange[0]}.type'])}"
    if isinstance(error, TypeError) and (match := CALLED.match(text)):
        called = [key for key in inner if key in components and _names(found[key], match[1])]
        keys = called or keys
    where = ' or '.join(f'{key} ({_type(components[key])})' for key in keys[:2])
    return f'{where or "the run failed"}{_when()}: {problem}'


def _class(function: str) -> str:
    return function.removesuffix('.__init__')


def _names(component: dict, function: str) -> bool:
    names = [getattr(cls, '__qualname__', None) for cls in named_classes(component)]
    return _class(function) in names


def _type(component: dict) -> str:
    return getattr(component['type'], '__name__', component['type'])


def _listed(keys: Iterable[str]) -> str:
    keys = list(keys)[:2]
    return f' ({" or ".join(keys)})' if keys else ''


def _when() -> str:
    iteration = MessageHub.get_current_instance().get_info('iter')
    return f' after {iteration} iterations' if iteration else ''


def _write_traceback(error: Exception, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open('a', encoding='utf-8') as file:
        command = ' '.join(sys.argv)
        file.write(f'{datetime.now().astimezone().isoformat(timespec="seconds")} {command}\n')
        file.writelines(traceback.format_exception(error))
        file.write('\n')
    return folder / LOG
