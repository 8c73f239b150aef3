"""tools/install_mmcv.py: which wheels it trusts. Nothing is built or installed."""

import os
import platform
import stat

import install_mmcv
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, 'geteuid'), reason='needs owners and file modes')
NAME = f'onedl_mmcv-{install_mmcv.VERSION}-{install_mmcv.PYTHON_TAG}-{install_mmcv.PYTHON_TAG}'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv('NC_WHEELS', str(tmp_path / 'wheels'))
    return install_mmcv.wheel_folder()


@pytest.fixture
def wheel(folder):
    folder.mkdir(parents=True)
    path = folder / f'{NAME}-linux_{platform.machine().lower()}.whl'
    path.write_bytes(b'content')
    return path


def found(folder):
    install_mmcv.make_private(folder)
    return install_mmcv.find_wheel(folder)


def test_the_folder_is_made_for_the_user_alone(folder):
    assert found(folder) is None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_wheel_without_a_hash_is_taken_and_its_hash_stored(folder, wheel, capsys):
    folder.chmod(0o755)
    assert found(folder) == wheel
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert 'has no hash yet' in capsys.readouterr().out
    assert found(folder) == wheel
    assert capsys.readouterr().out == ''


def test_another_content_than_the_hash_is_set_aside(folder, wheel, capsys):
    found(folder)
    wheel.write_bytes(b'other')
    assert found(folder) is None
    assert 'its content is not that of the hash' in capsys.readouterr().err
    assert [path.read_bytes() for path in folder.glob('*.rejected0')] == [b'other']
    wheel.write_bytes(b'again')
    assert found(folder) is None
    assert len(list(folder.glob('*.rejected*'))) == 2


def test_a_wheel_that_others_could_write_needs_a_hash(folder, wheel):
    folder.chmod(0o777)
    assert found(folder) is None
    assert found(folder) is None  # also after the folder has become private
    assert len(list(folder.glob('*.rejected0'))) == 1


def test_a_link_is_not_followed(folder, wheel, tmp_path):
    target = tmp_path / 'target.whl'
    wheel.rename(target)
    wheel.symlink_to(target)
    assert found(folder) is None
    assert target.read_bytes() == b'content'

    folder.rename(tmp_path / 'elsewhere')
    folder.symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(SystemExit, match='is behind a symbolic link: set NC_WHEELS'):
        install_mmcv.make_private(folder)


def test_a_folder_of_another_user_is_refused(folder, wheel, monkeypatch):
    monkeypatch.setattr(os, 'geteuid', lambda: wheel.stat().st_uid + 1)
    with pytest.raises(SystemExit, match='belongs to another user: set NC_WHEELS'):
        install_mmcv.make_private(folder)
