"""The command that builds the compiled backend names the folder of the installation's sources."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from nc_plugins.ops import sources


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Makes this an installation by pip from the given address, or from an index."""

    def install(address=None):
        folder = tmp_path / 'nc_plugins-0.1.0.dist-info'
        folder.mkdir()
        (folder / 'METADATA').write_text('Metadata-Version: 2.1\nName: nc_plugins\n')
        if address:
            (folder / 'direct_url.json').write_text(json.dumps({'url': address}))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(sources, '__file__', str(tmp_path / 'nc_plugins/ops/sources.py'))

    return install


def test_of_a_clone():
    command = shlex.split(sources.build_command())
    assert command[:4] == [sys.executable, '-m', 'pip', 'install']
    assert command[-2:] == ['-e', str(Path(__file__).parents[2])]


def test_of_a_folder(installed, tmp_path):
    folder = tmp_path / 'my sources'
    folder.mkdir()
    installed(folder.as_uri())
    command = shlex.split(sources.build_command())
    assert command[-2:] == ['--no-cache-dir', str(folder)]
    folder.rmdir()
    assert sources.build_command().endswith('SOURCES_OF_NC_PLUGINS')


@pytest.mark.parametrize('address', [None, 'https://example.org/nc_plugins.tar.gz'])
def test_of_sources_that_are_not_on_this_machine(installed, address):
    installed(address)
    assert sources.build_command().endswith('--no-cache-dir SOURCES_OF_NC_PLUGINS')
