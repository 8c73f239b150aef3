"""Write a data folder completely or not at all."""

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

MANIFEST = 'manifest.json'


def write_once(
    dest, parameters: dict, fill: Callable[[Path], dict], *, force: bool = False
) -> bool:
    """Let ``fill`` write into a hidden sibling of ``dest`` and rename it to ``dest`` at the end.

    ``fill`` gets the sibling and returns facts worth keeping (counts, say). They are written with
    ``parameters`` and the number of files to ``dest/manifest.json``, last of all. Whatever stops
    the work, Ctrl-C included, the sibling is removed and ``dest`` is as it was.

    Returns: True if written; False if ``dest`` already held the complete set of ``parameters``.
    Raises: FileExistsError if ``dest`` holds the set with other parameters or with files missing
        and ``force`` is off, or holds anything else (``force`` or not: foreign files stay);
        NotADirectoryError or another OSError if ``dest`` cannot be written.
    """
    # Through a link, the folder behind it is replaced and not the link.
    dest = Path(os.path.realpath(dest))
    if _holds(dest, parameters, force):
        return False
    stage = dest.with_name(f'.{dest.name}.{uuid.uuid4().hex[:8]}.part')
    made = [p for p in (dest.parent, *dest.parent.parents) if not p.exists()]
    try:
        try:
            stage.mkdir(parents=True)
        except (FileExistsError, NotADirectoryError):
            raise NotADirectoryError(
                f'cannot create {dest}: a part of its path is a file, wanted folders'
            ) from None
        except OSError as e:
            raise type(e)(f'cannot write in {dest.parent}: {e.strerror}') from None
        facts = fill(stage)
        manifest = {'parameters': parameters, **facts, 'files': _count_files(stage)}
        (stage / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')
        if _holds(dest, parameters, force):  # someone else was faster
            shutil.rmtree(stage)
            return False
        _swap_in(stage, dest)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        for parent in made:  # innermost first; one that someone else filled meanwhile stays
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise
    return True


def _holds(dest: Path, parameters: dict, force: bool) -> bool:
    """Whether ``dest`` holds the set already; raises where it may not be written."""
    if not dest.exists():
        return False
    if not dest.is_dir():
        raise NotADirectoryError(f'{dest} is a file, wanted a folder to write')
    if not any(dest.iterdir()):
        return False
    try:
        manifest = json.loads((dest / MANIFEST).read_text())
        present, count = manifest['parameters'], manifest['files']
        ours = present['set'] == parameters['set']
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise FileExistsError(
            f'{dest} holds files that are not {parameters["set"]}; name another folder or empty it'
        )
    if force:
        return False
    if present != parameters:
        keys = sorted({*present, *parameters})
        differ = [k for k in keys if present.get(k) != parameters.get(k)]
        raise FileExistsError(
            f'{dest} was written with '
            + ', '.join(f'{k}={present.get(k)!r}' for k in differ)
            + ', now asked for '
            + ', '.join(f'{k}={parameters.get(k)!r}' for k in differ)
            + '; use --force (force=True) to replace it'
        )
    found = _count_files(dest) - 1  # the manifest does not count itself
    if found != count:
        raise FileExistsError(
            f'{dest} holds {found} files, wanted {count}; use --force (force=True) to replace it'
        )
    return True


def _count_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _swap_in(stage: Path, dest: Path) -> None:
    if not dest.exists():
        stage.rename(dest)
        return
    old = stage.with_suffix('.old')
    dest.rename(old)
    try:
        stage.rename(dest)
    except BaseException:
        old.rename(dest)
        raise
    shutil.rmtree(old)
