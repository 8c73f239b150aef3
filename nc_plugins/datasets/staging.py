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
    """Write a data set to a temporary folder beside ``dest``, and rename it to ``dest`` at the end.

    The last file is ``manifest.json`` with the parameters, the facts and the number of files. After
    an error or Ctrl-C the temporary folder is removed and ``dest`` is unchanged.

    Args:
        dest: Folder to write.
        parameters: Parameters of the data set. ``parameters['set']`` is its name.
        fill: Function that writes into the folder it is given, and returns facts for the manifest.
        force: Whether to replace a set of the same name with other parameters or missing files.

    Returns:
        True if the set was written, False if ``dest`` already contained it.

    Raises:
        FileExistsError: If ``dest`` contains other files, or if it contains the set with other
            parameters or with missing files and ``force`` is False.
        NotADirectoryError: If ``dest`` or a part of its path is a file.
        OSError: If ``dest`` cannot be written.
    """
    # If dest is a link, the folder that it points to is replaced.
    dest = Path(os.path.realpath(dest))
    if _is_complete(dest, parameters, force):
        return False
    stage = dest.with_name(f'.{dest.name}.{uuid.uuid4().hex[:8]}.part')
    made = [p for p in (dest.parent, *dest.parent.parents) if not p.exists()]
    try:
        try:
            stage.mkdir(parents=True)
        except (FileExistsError, NotADirectoryError):
            raise NotADirectoryError(
                f'cannot create {dest}: a part of its path is a file'
            ) from None
        except OSError as e:
            raise type(e)(f'cannot write in {dest.parent}: {e.strerror}') from None
        facts = fill(stage)
        manifest = {'parameters': parameters, **facts, 'files': _count_files(stage)}
        (stage / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')
        if _is_complete(dest, parameters, force):  # another process wrote it meanwhile
            shutil.rmtree(stage)
            return False
        _swap_in(stage, dest)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        for parent in made:  # innermost first; parents with other files stay
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise
    return True


def _is_complete(dest: Path, parameters: dict, force: bool) -> bool:
    """Whether ``dest`` contains the set. Raises an error if it must not be replaced."""
    if not dest.exists():
        return False
    if not dest.is_dir():
        raise NotADirectoryError(f'{dest} is a file, not a folder')
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
            f'{dest} contains files that are not {parameters["set"]}; '
            'choose another folder or empty it'
        )
    if force:
        return False
    if present != parameters:
        keys = sorted({*present, *parameters})
        differ = [k for k in keys if present.get(k) != parameters.get(k)]
        raise FileExistsError(
            f'{dest} was written with '
            + ', '.join(f'{k}={present.get(k)!r}' for k in differ)
            + ', but now requested with '
            + ', '.join(f'{k}={parameters.get(k)!r}' for k in differ)
            + '; use --force (force=True) to replace it'
        )
    found = _count_files(dest) - 1  # without the manifest
    if found != count:
        raise FileExistsError(
            f'{dest} contains {found} files instead of {count}; '
            'use --force (force=True) to replace it'
        )
    return True


def _count_files(folder: Path) -> int:
    """The number of files, without those that macOS and editors hide in the folder."""
    names = (name for _, _, files in os.walk(folder) for name in files)
    return sum(not name.startswith('.') for name in names)


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
