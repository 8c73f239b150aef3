import json

import pytest
from mmengine.config import Config

from nc_plugins.report.saved_config import config_diff, has_fingerprint, read_saved_config

VALUES = {
    'model': {'type': 'R', 'norm': {'type': 'GN', 'num_groups': 32}, 'a-b': {'1': None}},
    'steps': (1, 2.5, -3),
    'one': (1,),
    'hooks': [{'type': 'A'}, {'type': 'B', 'size': [1, [2, 3]]}],
    'quoted': 'it\'s "quoted" \\ <script>',
    'big': 1e30,
    'flag': True,
    'empty': {},
}


def test_the_config_that_mmengine_saves_is_read_back(tmp_path):
    Config(VALUES).dump(tmp_path / 'a.py')
    Config(VALUES).dump(tmp_path / 'b.json')
    for config in ('configs/a.py', 'configs/b.json'):
        assert config_diff(read_saved_config(tmp_path, config), VALUES) == []


def test_infinity_and_nan_are_read(tmp_path):
    (tmp_path / 'a.py').write_text('high = inf\nlow = -inf\nno = nan\n')
    values = read_saved_config(tmp_path, 'a.py')
    assert config_diff(values, values) == []
    assert (values['high'], values['low']) == (float('inf'), float('-inf'))


@pytest.mark.parametrize(
    'text',
    [
        'x = open("made", "w")',
        'import os',
        'x = dict(a=__import__("os"))',
        'x = [i for i in (1, 2)]',
        'x, y = 1, 2',
        'x = (',
    ],
)
def test_a_saved_config_is_never_run(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.py').write_text(text + '\n')
    assert read_saved_config(tmp_path, 'a.py') is None
    assert not (tmp_path / 'made').exists()


def test_a_missing_or_odd_file_is_none(tmp_path):
    assert read_saved_config(tmp_path, 'a.py') is None
    (tmp_path / 'a.json').write_text('[1]')
    assert read_saved_config(tmp_path, 'a.json') is None
    (tmp_path / 'a.yaml').write_text('a: 1')
    assert read_saved_config(tmp_path, 'a.yaml') is None


def test_only_what_differs_is_listed():
    other = json.loads(json.dumps(VALUES))  # a list is no other value than a tuple
    assert config_diff(VALUES, other) == []
    other['model']['norm'] = {'type': 'NC'}
    other['hooks'][1]['size'] = [1, [2, 4]]
    other['new'] = 'x'
    assert config_diff(VALUES, other) == [
        ('hooks[1].size', '[1, [2, 3]]', '[1, [2, 4]]'),
        ('model.norm.num_groups', '32', '(not set)'),
        ('model.norm.type', "'GN'", "'NC'"),
        ('new', '(not set)', "'x'"),
    ]


def test_what_names_the_run_is_left_out():
    here = dict(work_dir='a', run_fingerprint='1', randomness=dict(seed=0), load_from=None)
    there = dict(work_dir='b', run_fingerprint='2', randomness=dict(seed=1), load_from='x.pth')
    assert config_diff(here, there | {'resume': False}) == [('load_from', 'None', "'x.pth'")]
    assert config_diff(here, there | {'resume': True}) == [('load_from', 'None', '(not set)')]


@pytest.mark.parametrize('suffix', ['py', 'json', 'yaml'])
def test_the_fingerprint_is_found_in_every_format(tmp_path, suffix):
    config = Config(dict(lr=0.1, run_fingerprint='sha256:0123456789abcdef'))
    config.dump(tmp_path / f'a.{suffix}')
    assert has_fingerprint(tmp_path, f'configs/a.{suffix}', 'sha256:0123456789abcdef')
    assert not has_fingerprint(tmp_path, f'configs/a.{suffix}', 'sha256:0123456789abcde0')
    assert not has_fingerprint(tmp_path, f'configs/b.{suffix}', 'sha256:0123456789abcdef')
