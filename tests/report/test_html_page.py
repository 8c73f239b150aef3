"""report.html: what it says, that a stranger's text stays text, and that it needs no other file."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from nc_plugins.records import Record
from nc_plugins.report import comparisons, write_report
from nc_plugins.report.html_page import html_page
from nc_plugins.report.runs import Run

RECORD = Record(
    images_per_second=100.0,
    peak_memory_mb=512.4,
    memory_kind='process peak RSS',
    train_seconds=130.0,
    total_seconds=7500.0,
    device='CPU x',
    world_size=1,
    threads=2,
    torch='2.11.0',
    commit='c0ffee',
    utc_start='2025-01-01T00:00:00+00:00',
    utc_end='2025-01-01T02:10:00+00:00',
    census={'NC': 20, 'conv': 0},
)
EVIL = '"\'><script>alert(1)</script><img src=//evil.example onerror=alert(1)> {{ 7*7 }} &amp;'
VOID = {'meta', 'img', 'source', 'wbr', 'line', 'circle'}


def run(folder, name, seed, top1, **record):
    """A finished run of two epochs with a saved config, metrics by class and a picture."""
    folder = folder / 'runs' / name / f'seed{seed}'
    samples = folder / 'samples'
    samples.mkdir(parents=True)
    (samples / 'epoch_2.png').write_bytes(b'\x89PNG picture')
    saved = f"model = dict(norm='{name}', depth=18)\nrandomness = dict(seed={seed})\n"
    (folder / f'{name}.py').write_text(saved)
    metrics = [{'accuracy/top1': value, 'val/loss': 100 / value} for value in (top1 - 10, top1)]
    return Run(
        f'configs/{name}.py',
        seed,
        folder,
        status='finished',
        why='',
        max_x=2,
        train=[(1, 2.0), (2, 0.5)],
        validations=list(enumerate(metrics, 1)),
        per_class={'class/IoU': {'zero': top1, 'one': 5.0}},
        record=replace(RECORD, **record),
        command=f'python tools/train.py configs/{name}.py',
    )


GN = (40.0, 42.0, 41.0, 43.0, 39.0, 41.0)
NC = (45.0, 47.1, 46.0, 48.2, 44.0, 46.1)


def compared(folder, **configs):
    return [run(folder, c, i, v) for c, values in configs.items() for i, v in enumerate(values)]


def page(runs, command='python tools/compare.py a b', title='', jobs=1):
    return html_page(comparisons(runs), command, title, jobs)


class Checker(HTMLParser):
    """Collects tags, attributes and text, and fails where a tag is not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], set(), [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ['style']:
            self.words.append(data)

    @property
    def text(self):
        """The text of the page without markup, with single spaces."""
        return ' '.join(''.join(self.words).split())


def test_the_answer_comes_first_and_every_part_follows(tmp_path):
    runs = compared(tmp_path, gn=GN, nc=NC)
    html = page(runs, title='My title', jobs=2)
    text = Checker(html).text
    parts = [
        'My title',
        'Trained 2025-01-01 00:00 to 2025-01-01 02:10 UTC. Seeds 0, 1, 2, 3, 4, 5. Baseline gn.',
        'nc is better than gn in top-1 accuracy (%): 46.07 against 41.00, +5.07 over 6 pairs',
        'Results',
        'gn 6 41.00 ± 1.41',
        'Differences to gn',
        'top-1 accuracy (%) better +5.07 +4.98 to +5.15',
        '6 0.031 0.031',
        'validation loss (nats) better -0.2',
        'Reasons to doubt',
        'Up to 2 runs shared the machine',
        'Curves',
        'nc, seeds: 6',
        'Pictures',
        'nc, seed 0, epoch_2',
        'By class: IoU (%)',
        'zero 41.00 ± 1.41 46.07 ± 1.49',
        'Time and memory',
        'gn 6 100.0 ± 0.0 2 min 2 h 05 min 512',
        'Layers',
        'gn 20',
        'Config of nc: what differs from gn',
        "model.norm 'gn' 'nc'",
        'Every run',
        'nc 5 finished 46.10',
        'Environment',
        'device CPU x',
        'commit c0ffee',
        'Commands of the trainings',
        'python tools/train.py configs/nc.py',
        'How to read this page',
        'python tools/compare.py a b',
    ]
    found = [text.find(part) for part in parts]
    assert -1 not in found, parts[found.index(-1)]
    assert found == sorted(found)
    assert 'depth' not in text  # it does not differ
    assert html.count('<figure><picture>') == 3
    assert html.index('class="answer good"') < html.index('<table>')


def test_two_seeds_give_no_verdict(tmp_path):
    text = Checker(page(compared(tmp_path, gn=GN[:2], nc=NC[:2]))).text
    assert 'No verdict between nc and gn in top-1 accuracy (%): 46.05 against 41.00, +5.05' in text
    assert 'top-1 accuracy (%) fewer than 3 pairs +5.05 - +5.00, +5.10 2 - -' in text
    assert 'No verdict is given from fewer than 3 pairs.' in text


def test_several_configs_are_corrected_and_several_tasks_apart(tmp_path):
    runs = compared(tmp_path, gn=GN, nc=NC, bn=[v + (-1) ** i for i, v in enumerate(GN)])
    for other in compared(tmp_path, det_gn=GN[:1]):
        other.task = 'detection'
        runs.append(other)
    html = page(runs)
    text = Checker(html).text
    assert text.startswith('2 comparisons 2 comparisons Trained')
    assert 'Against gn in top-1 accuracy (%): nc is better, with weak evidence (+5.07); bn' in text
    assert re.search(r'nc weak evidence: better \+5.07 \S+ to \S+ [^a-z]*6 0.031 0.031 0.062', text)
    assert 'det_gn reaches 40.00 in top-1 accuracy (%), without a comparison.' in text
    for number, name in enumerate(('gn against nc, bn', 'det_gn'), 1):
        assert f'<a href="#comparison-{number}">{name}</a>' in html
        assert f'<section id="comparison-{number}">' in html


def test_missing_and_diverged_runs_are_shown(tmp_path):
    runs = compared(tmp_path, gn=GN[:3], nc=NC[:2])
    runs.append(Run('configs/nc.py', 2, tmp_path / 'none', why='exit code 1', train=[(1, 2.0)]))
    bad = run(tmp_path, 'bad', 0, math.nan)
    bad.status = 'diverged'
    text = Checker(page([*runs, bad])).text
    assert 'nc 2 missing: exit code 1 -' in text
    assert 'nc 2 of 3 (1 missing)' in text
    assert 'bad not finite nan -' in text
    assert 'bad: seed 0 diverged' in text
    lost = [Run('configs/gn.py', 0, tmp_path / 'none'), Run('configs/nc.py', 0, tmp_path / 'none')]
    text = Checker(page(lost)).text
    assert 'There is no answer yet: gn, the baseline, has no finished run.' in text
    assert 'Unknown: a run folder has no saved config' in text


def evil_page(folder):
    name = EVIL.replace('/', '')
    fields = ('device', 'torch', 'commit', 'nc_plugins', 'memory_kind')
    record = dict.fromkeys(fields, EVIL) | {'census': {EVIL: 3}}
    runs = [run(folder, 'gn', 0, 40.0), run(folder, 'nc', 0, 41.0, **record)]
    (runs[1].folder / 'samples' / 'epoch_2.png').rename(
        runs[1].folder / 'samples' / f'{name[:60]}_3.png'
    )
    values = f'{EVIL!r}: {EVIL!r}'
    (runs[1].folder / 'nc.py').write_text(f'model = {{{values}}}\n')
    runs[1].per_class = {EVIL: {EVIL: 1.0}}
    runs[1].command = EVIL
    runs[1].validations[-1][1][EVIL] = 3.0
    runs.append(Run(f'configs/{name}.py', 0, folder / 'none', why=EVIL))
    return page(runs, EVIL, EVIL)


def test_text_of_strangers_is_shown_as_text(tmp_path):
    html = evil_page(tmp_path)
    checked = Checker(html)
    assert 'script' not in checked.tags
    assert not [a for a in checked.attributes if a[1].startswith('on')]
    assert {a[2] for a in checked.attributes if a[0] == 'img' and a[1] == 'src'} == {
        a[2] for a in checked.attributes if (a[2] or '').startswith('data:') and a[1] == 'src'
    }
    # Title twice, why, five fields, census, class, metric by class, both commands, config.
    assert checked.text.count('<script>alert(1)</script>') >= 13
    assert '49' not in checked.text.replace('%', '')  # Jinja did not compute the braces
    # The braces of Jinja come out as they went in.
    assert '{{ 7*7 }}' in checked.text


def test_the_page_needs_no_other_file(tmp_path):
    html = page(compared(tmp_path, gn=GN[:3], nc=NC[:3]))
    checked = Checker(html)
    assert checked.tags.isdisjoint({'script', 'link', 'iframe', 'object', 'base', 'form'})
    targets = [a[2] for a in checked.attributes if a[1] in {'src', 'srcset', 'href', 'data'}]
    assert targets
    assert all(target.startswith(('data:image/', '#')) for target in targets)
    style = html[html.index('<style>') : html.index('</style>')]
    assert 'url(' not in style and '@import' not in style
    assert "default-src 'none'" in html


def test_the_same_runs_give_the_same_bytes(tmp_path):
    runs = compared(tmp_path, gn=GN[:3], nc=NC[:3])
    assert write_report(tmp_path, runs).read_text('utf-8') == page(runs, '')


@pytest.mark.parametrize('value', [0.0, 1e-30, 1e30])
def test_differences_of_any_size_are_drawn(tmp_path, value):
    runs = compared(tmp_path, gn=[40.0] * 3, nc=[40.0 + value] * 3)
    for number in re.findall(r'<circle class="seed" cx="([^"]+)"', page(runs)):
        assert 0 <= float(number) <= 160
