"""report.html in headless Chromium: on the width of a phone and of a desk, and printed."""

import json
import shutil
import subprocess
from html import unescape

import pytest
from test_html_page import GN, NC, compared, evil_page, page

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
WIDTHS = (390, 1280)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f'none of {", ".join(NAMES)} is on PATH')

# A frame has the width of a device, and its page cannot run a script, so this page measures it.
MEASURE = """<!DOCTYPE html><body><script>
async function measure(width) {
  const frame = document.createElement('iframe')
  frame.style = `width: ${width}px; height: 2000px; border: 0`
  frame.src = 'report.html'
  document.body.append(frame)
  await new Promise(done => frame.onload = done)
  const view = frame.contentWindow, page = frame.contentDocument
  return {
    inner: view.innerWidth,
    scroll: page.documentElement.scrollWidth,
    urls: view.performance.getEntriesByType('resource').map(entry => entry.name)
      .filter(name => !name.startsWith('data:')),
  }
}
Promise.all([%s].map(measure)).then(
  found => document.body.replaceChildren(JSON.stringify(found)))
</script>"""


def chromium(folder, *args):
    command = [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--enable-logging=stderr']
    command += ['--allow-file-access-from-files', f'--user-data-dir={folder / "profile"}']
    done = subprocess.run([*command, *args], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    console = [line for line in done.stderr.splitlines() if ':CONSOLE' in line]
    return done.stdout, console


def look_at(folder, html):
    """Measurements at each of ``WIDTHS``, and the messages on the console."""
    (folder / 'report.html').write_text(html)
    (folder / 'measure.html').write_text(MEASURE % ', '.join(map(str, WIDTHS)))
    wait = '--virtual-time-budget=10000'
    out, console = chromium(folder, wait, '--dump-dom', (folder / 'measure.html').as_uri())
    body = out[out.index('<body>') + len('<body>') : out.index('</body>')]
    return json.loads(unescape(body)), console


def pages(folder):
    long = 'mask-rcnn_r50-scratch_fpn_nc-all_6x_coco_with_a_long_name'
    runs = compared(folder, gn=GN, nc=NC, **{long: NC})
    yield page(runs, 'python tools/compare.py ' + 'a_long_argument ' * 20, 'T' * 200)
    (folder / 'evil').mkdir()
    yield evil_page(folder / 'evil')


@pytest.mark.parametrize('index', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_nothing_is_wider_than_the_screen_and_nothing_is_fetched(tmp_path, index):
    found, console = look_at(tmp_path, list(pages(tmp_path))[index])
    assert [at['inner'] for at in found] == list(WIDTHS)
    assert [at for at in found if at['scroll'] > at['inner']] == []
    assert [at['urls'] for at in found] == [[], []]
    assert console == []


@pytest.mark.slow
def test_a_bad_page_is_caught(tmp_path):
    html = page(compared(tmp_path, gn=GN[:1]))
    wide = '<div style="width: 700px">x</div><img src="https://example.invalid/x.png"></main>'
    found, console = look_at(tmp_path, html.replace('</main>', wide))
    assert [at['scroll'] > at['inner'] for at in found] == [True, False]
    assert 'https://example.invalid/x.png' in '\n'.join(console)


def test_it_prints(tmp_path):
    (tmp_path / 'report.html').write_text(page(compared(tmp_path, gn=GN[:3], nc=NC[:3])))
    file = tmp_path / 'page.pdf'
    _, console = chromium(tmp_path, f'--print-to-pdf={file}', (tmp_path / 'report.html').as_uri())
    assert file.read_bytes().startswith(b'%PDF-') and file.stat().st_size > 20_000
    assert console == []
