"""The pages build into a site without a warning, and it loads nothing from a network."""

import re
import subprocess
import sys

import pytest

from .pages import ROOT


@pytest.mark.slow
def test_site(tmp_path):
    build = [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', 'docs', str(tmp_path)]
    result = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    pages = [page.read_text() for page in tmp_path.rglob('*.html')]
    remote = re.compile(r'<(?:script|img|link)\b[^>]*?(?:src|href)="\w+://[^"]*')
    assert [match for page in pages for match in remote.findall(page)] == []
    assert 'NCConv2d' in (tmp_path / 'api' / 'layers.html').read_text()
