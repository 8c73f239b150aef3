"""A data folder is written completely or not at all."""

import json
from pathlib import Path

import pytest

from nc_plugins.datasets.staging import write_once

PARAMETERS = {'set': 'letters', 'size': 2}


def fill(root):
    (root / 'sub').mkdir()
    (root / 'sub' / 'a.txt').write_text('a')
    (root / 'b.txt').write_text('b')
    return {'letters': 2}


def fail(kind):
    def fill_half(root):
        (root / 'half.txt').write_text('half')
        raise kind('midway')

    return fill_half


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*'))


def test_writes_the_manifest_and_creates_parents(tmp_path):
    dest = tmp_path / 'new' / 'deep' / 'letters'
    assert write_once(dest, PARAMETERS, fill) is True
    assert files(dest) == ['b.txt', 'manifest.json', 'sub', 'sub/a.txt']
    manifest = json.loads((dest / 'manifest.json').read_text())
    assert manifest == {'parameters': PARAMETERS, 'letters': 2, 'files': 2}
    assert [p.name for p in dest.parent.iterdir()] == ['letters']


def test_a_complete_set_is_not_written_again(tmp_path):
    dest = tmp_path / 'letters'
    write_once(dest, PARAMETERS, fill)
    assert write_once(dest, PARAMETERS, fail(AssertionError)) is False


def test_an_empty_folder_and_a_link_to_one_are_filled(tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'letters').symlink_to(tmp_path / 'disk')
    assert write_once(tmp_path / 'letters', PARAMETERS, fill)
    assert (tmp_path / 'letters').is_symlink()
    assert (tmp_path / 'disk' / 'manifest.json').is_file()
    assert files(tmp_path / 'disk') == ['b.txt', 'manifest.json', 'sub', 'sub/a.txt']


@pytest.mark.parametrize('kind', [OSError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(tmp_path, kind):
    with pytest.raises(kind, match='midway'):
        write_once(tmp_path / 'new' / 'letters', PARAMETERS, fail(kind))
    assert files(tmp_path) == []


def test_a_failure_with_force_keeps_the_old_set(tmp_path):
    dest = tmp_path / 'letters'
    write_once(dest, PARAMETERS, fill)
    before = files(tmp_path)
    with pytest.raises(OSError, match='midway'):
        write_once(dest, {**PARAMETERS, 'size': 3}, fail(OSError), force=True)
    assert files(tmp_path) == before
    assert write_once(dest, PARAMETERS, fill) is False


def test_a_failure_of_the_last_rename_restores_the_old_set(tmp_path, monkeypatch):
    dest = tmp_path / 'letters'
    write_once(dest, PARAMETERS, fill)
    before, rename = files(tmp_path), Path.rename

    def fail_for_the_new(self, target):
        if self.suffix == '.part':
            raise OSError('rename failed')
        return rename(self, target)

    monkeypatch.setattr(Path, 'rename', fail_for_the_new)
    with pytest.raises(OSError, match='rename failed'):
        write_once(dest, PARAMETERS, fill, force=True)
    assert files(tmp_path) == before


def test_force_replaces_the_whole_set(tmp_path):
    dest = tmp_path / 'letters'
    write_once(dest, PARAMETERS, fill)
    (dest / 'stale.txt').write_text('')
    assert write_once(dest, {**PARAMETERS, 'size': 3}, fill, force=True) is True
    assert files(tmp_path) == [
        'letters',
        'letters/b.txt',
        'letters/manifest.json',
        'letters/sub',
        'letters/sub/a.txt',
    ]


def test_a_set_that_another_process_wrote_meanwhile_stays(tmp_path):
    dest = tmp_path / 'letters'

    def fill_late(root):
        write_once(dest, PARAMETERS, fill)
        (dest / 'b.txt').write_text('the other one')
        return fill(root)

    assert write_once(dest, PARAMETERS, fill_late) is False
    assert (dest / 'b.txt').read_text() == 'the other one'
    assert [p.name for p in tmp_path.iterdir()] == ['letters']


def test_other_parameters_are_an_error(tmp_path):
    dest = tmp_path / 'letters'
    write_once(dest, PARAMETERS, fill)
    with pytest.raises(
        FileExistsError, match=r'written with size=2, but now requested with size=3; .*force'
    ):
        write_once(dest, {**PARAMETERS, 'size': 3}, fill)


def test_a_set_with_a_missing_file_is_an_error(tmp_path):
    dest = tmp_path / 'letters'
    write_once(dest, PARAMETERS, fill)
    (dest / 'sub' / 'a.txt').unlink()
    with pytest.raises(FileExistsError, match=r'contains 1 files instead of 2; .*force'):
        write_once(dest, PARAMETERS, fill)


@pytest.mark.parametrize('manifest', [None, '', '{}', '[]', '{"parameters": {"set": "x"}}'])
@pytest.mark.parametrize('force', [False, True])
def test_other_files_stay_even_with_force(tmp_path, force, manifest):
    (tmp_path / 'thesis.tex').write_text('')
    if manifest is not None:
        (tmp_path / 'manifest.json').write_text(manifest)
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match='files that are not letters'):
        write_once(tmp_path, PARAMETERS, fill, force=force)
    assert files(tmp_path) == before


def test_dest_or_its_parent_is_a_file(tmp_path):
    (tmp_path / 'taken').write_text('')
    with pytest.raises(NotADirectoryError, match='taken is a file, not a folder'):
        write_once(tmp_path / 'taken', PARAMETERS, fill)
    with pytest.raises(NotADirectoryError, match='part of its path is a file'):
        write_once(tmp_path / 'taken' / 'letters', PARAMETERS, fill)
    assert files(tmp_path) == ['taken']


def test_a_parent_that_cannot_be_written(tmp_path, monkeypatch):
    # Not by file modes, because root, as which many CIs run, ignores them.
    def denied(self, *args, **kwargs):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr('pathlib.Path.mkdir', denied)
    with pytest.raises(PermissionError, match=r'cannot write in \S+: Permission denied'):
        write_once(tmp_path / 'letters', PARAMETERS, fill)
