"""Convert the downloaded Tiny ImageNet to class folders."""

import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from nc_plugins.datasets.staging import write_once

OFFICIAL = {'classes': 200, 'train': 100_000, 'val': 10_000}
ANNOTATIONS = 'val/val_annotations.txt'
PARAMETERS = {'set': 'Tiny ImageNet in class folders', 'version': 1}


def convert_tiny_imagenet(
    source, dest, *, force: bool = False, progress: Callable[[str], None] | None = None
) -> dict[str, int] | None:
    """Write ``dest/{train,val}/<wnid>/*.JPEG`` from the official archive, completely or not at all.

    The JPEG files are not decoded. From an extracted folder they are hard-linked, or copied if the
    file system does not support links. The test images are left out, because their labels are not
    public.

    Args:
        source: tiny-imagenet-200.zip (http://cs231n.stanford.edu/tiny-imagenet-200.zip), or the
            folder extracted from it.
        dest: Folder to write.
        force: Whether to replace a set of another version or with missing files.
        progress: Called with lines of text.

    Returns:
        The numbers of classes, train images and val images, or None if ``dest`` was complete.

    Raises:
        FileNotFoundError: If ``source`` does not exist.
        ValueError: If ``source`` is damaged or is not Tiny ImageNet. The message names the file.
        OSError: If ``dest`` cannot be written. See :func:`write_once` for its subclasses.
    """
    report = progress or (lambda line: None)
    counts: dict[str, int] = {}

    def fill(root: Path) -> dict:
        with _open(Path(source)) as archive:
            wnids = _read_wnids(archive)
            plans = {'train': _train_files(archive, wnids), 'val': _val_files(archive, wnids)}
            counts['classes'] = len(wnids)
            for split, files in plans.items():
                _check_files(archive, split, wnids, files)
            for split, files in plans.items():
                for wnid in wnids:
                    (root / split / wnid).mkdir(parents=True)
                for done, (name, wnid) in enumerate(files.items(), 1):
                    archive.put(name, root / split / wnid / PurePosixPath(name).name)
                    if done % 10_000 == 0 and done < len(files):
                        report(f'{split:5} {done:,} of {len(files):,} images')
                counts[split] = len(files)
                report(f'{split:5} {len(files):,} images of {len(wnids)} classes')
        return counts

    return counts if write_once(dest, PARAMETERS, fill, force=force) else None


class _Folder:
    """The extracted archive. File names are relative to the folder of wnids.txt."""

    def __init__(self, path: Path):
        self.path = path
        if not (path / 'wnids.txt').is_file() and (path / 'tiny-imagenet-200').is_dir():
            path = path / 'tiny-imagenet-200'
        self.root = path

    def names(self) -> Iterable[str]:
        # Not the whole folder, which may contain other files.
        for top in ('train', 'val'):
            for folder, _, files in os.walk(self.root / top):
                for name in files:
                    yield (Path(folder) / name).relative_to(self.root).as_posix()

    def text(self, name: str) -> str:
        return (self.root / name).read_text()

    def size(self, name: str) -> int:
        return (self.root / name).stat().st_size

    def put(self, name: str, target: Path) -> None:
        origin = os.path.realpath(self.root / name)
        try:
            os.link(origin, target)
        except OSError:
            shutil.copyfile(origin, target)


class _Zip:
    """The zip file, read without extracting it. It has the methods of _Folder."""

    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self.path, self.archive = path, archive
        roots = [n for n in archive.namelist() if PurePosixPath(n).name == 'wnids.txt']
        self.prefix = min(roots, key=len)[: -len('wnids.txt')] if roots else ''

    def names(self) -> Iterable[str]:
        for name in self.archive.namelist():
            if name.startswith(self.prefix) and not name.endswith('/'):
                yield name[len(self.prefix) :]

    def text(self, name: str) -> str:
        return self._read(name).decode()

    def size(self, name: str) -> int:
        return self.archive.getinfo(self.prefix + name).file_size

    def put(self, name: str, target: Path) -> None:
        target.write_bytes(self._read(name))

    def _read(self, name: str) -> bytes:
        try:
            return self.archive.read(self.prefix + name)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as e:
            raise ValueError(
                f'{self.path} is damaged at {self.prefix}{name} ({e}); download it again'
            ) from None
        except KeyError:
            raise FileNotFoundError(name) from None


@contextmanager
def _open(path: Path):
    if path.is_dir():
        yield _Folder(path)
        return
    if not path.exists():
        raise FileNotFoundError(
            f'{path} does not exist; expected tiny-imagenet-200.zip or the folder extracted from it'
        )
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise ValueError(
            f'{path} is not a complete zip file; download tiny-imagenet-200.zip again'
        ) from None
    with archive:
        yield _Zip(path, archive)


def _read(archive, name: str) -> list[list[str]]:
    try:
        text = archive.text(name)
    except FileNotFoundError:
        raise ValueError(f'{archive.path} is not Tiny ImageNet: it has no {name}') from None
    except UnicodeDecodeError:
        raise ValueError(f'{name} in {archive.path} is not text') from None
    return [line.split() for line in text.splitlines() if line.strip()]


def _read_wnids(archive) -> list[str]:
    wnids = [fields[0] for fields in _read(archive, 'wnids.txt')]
    for wnid in wnids:  # they become names of folders, so ../ must not occur
        if not re.fullmatch(r'n\d{8}', wnid):
            raise ValueError(
                f'wnids.txt in {archive.path} lists {wnid!r}, expected an id such as n01443537'
            )
    if not wnids or len(set(wnids)) != len(wnids):
        raise ValueError(f'wnids.txt in {archive.path} is empty or lists a class twice')
    return sorted(wnids)


def _images(archive, folder: str) -> list[str]:
    """The images of a split, without the ._ files of macOS."""
    return sorted(
        n
        for n in archive.names()
        if n.startswith(folder + '/') and n.lower().endswith('.jpeg') and not _is_hidden(n)
    )


def _is_hidden(name: str) -> bool:
    return any(part.startswith('.') for part in name.split('/'))


def _train_files(archive, wnids: list[str]) -> dict[str, str]:
    files = {name: name.split('/')[1] for name in _images(archive, 'train')}
    unknown = sorted(set(files.values()) - set(wnids))
    if unknown:
        raise ValueError(f'{archive.path} has train/{unknown[0]}, which wnids.txt does not list')
    first: dict[tuple[str, str], str] = {}
    for name, wnid in files.items():
        target = (wnid, PurePosixPath(name).name)
        if target in first:
            raise ValueError(f'{archive.path} has one image twice: {first[target]} and {name}')
        first[target] = name
    return files


def _val_files(archive, wnids: list[str]) -> dict[str, str]:
    present = set(_images(archive, 'val'))
    if present and not any(name.startswith('val/images/') for name in present):
        raise ValueError(
            f'{archive.path} has its val images sorted into folders already ({min(present)}), but '
            f'wanted are val/images and {ANNOTATIONS}, as in the download'
        )
    labels = {}
    for fields in _read(archive, ANNOTATIONS):
        if len(fields) < 2 or fields[1] not in wnids:
            raise ValueError(
                f'{ANNOTATIONS} in {archive.path} has the line {" ".join(fields)!r}, '
                'expected an image and a class of wnids.txt'
            )
        labels[f'val/images/{fields[0]}'] = fields[1]
    for name in sorted(labels.keys() ^ present):
        raise ValueError(
            f'{archive.path}: {name} '
            + (f'has no line in {ANNOTATIONS}' if name in present else 'is missing')
        )
    return {name: labels[name] for name in sorted(labels)}


def _check_files(archive, split: str, wnids: list[str], files: dict[str, str]) -> None:
    for name in files:
        if archive.size(name) == 0:
            raise ValueError(f'{name} in {archive.path} is an empty file')
    empty = sorted(set(wnids) - set(files.values()))
    if empty:
        more = f' and {len(empty) - 1} more' if len(empty) > 1 else ''
        raise ValueError(f'{archive.path} has no {split} images of class {empty[0]}{more}')
