"""Configs in JSON and YAML run no code, and every config loads as mmengine loads it."""

import json
import re
import sys

import pytest

pytest.importorskip('mmengine')
from mmengine.config import Config
from mmengine.registry import FUNCTIONS, HOOKS, MODELS

from nc_plugins.engine.config_files import read_config, registered_types_only
from nc_plugins.engine.usage import UsageError


@pytest.fixture
def write(tmp_path):
    def write(content, name='config.json'):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def refused(path, words):
    with pytest.raises(UsageError, match=words):
        read_config(path)


def test_json_and_yaml_give_what_mmengine_reads(write):
    write({'a': {'b': 1, 'c': 2}}, 'base.json')
    path = write('_base_: [base.json]\na: {c: 3}\ntopk: !!python/tuple [1, 5]\n', 'config.yaml')
    assert read_config(path).to_dict() == Config.fromfile(path).to_dict()
    assert read_config(path).to_dict() == {'a': {'b': 1, 'c': 3}, 'topk': (1, 5)}


def test_a_package_may_be_the_base(write):
    pytest.importorskip('mmpretrain')
    base = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
    assert read_config(write({'_base_': base})).model.backbone.type == 'ResNet_CIFAR'


@pytest.mark.parametrize(
    'base',
    [
        'evil.py',
        '../evil.py',
        'mmdet::../../evil.py',
        'mmdet::/tmp/evil.py',
        'evil::a/b.py',
        'mmdet::a\\..\\evil.py',
        '{{fileBasenameNoExtension}}',
        7,
    ],
)
def test_a_program_is_no_base(base, write):
    write("raise RuntimeError('it ran')", 'evil.py')
    refused(
        write({'_base_': base}), re.escape(f'has the _base_ {base!r}, which could run any code')
    )


def test_a_base_of_a_base_is_checked(write):
    write("raise RuntimeError('it ran')", 'evil.py')
    write({'_base_': 'evil.py'}, 'middle.json')
    refused(write('_base_: ./middle.json', 'config.yml'), "middle.json has the _base_ 'evil.py'")


def test_a_text_is_not_substituted(write):
    path = write({'a': '{{$NC_NOT_SET:evil.py}} {{ fileBasename }}'})
    assert read_config(path).a == '{{$NC_NOT_SET:evil.py}} {{ fileBasename }}'


@pytest.mark.parametrize(
    'tag', ['!!python/object/apply:os.system [touch ran]', '!!python/name:os.system']
)
def test_a_tag_calls_nothing(tag, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(write(f'a: {tag}\n', 'config.yaml'), 'does not load: ConstructorError')
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ({'custom_imports': {'imports': ['nc_plugins', 'evil']}}, "the custom import 'evil'"),
        ({'custom_imports': {'imports': 'evil'}}, "the custom import 'evil'"),
        ({'custom_imports': 'evil'}, "the custom import 'evil'"),
        ({'default_scope': 'evil'}, "the default_scope 'evil'"),
        ([1], 'must contain a mapping, got list'),
        ('{', 'does not load: JSONDecodeError'),
    ],
)
def test_what_else_is_refused(content, words, write, tmp_path, monkeypatch):
    write("raise RuntimeError('it ran')", 'evil.py')
    monkeypatch.syspath_prepend(tmp_path)
    refused(write(content), words)
    assert 'evil' not in sys.modules


def test_modules_of_the_packages_are_imported(write):
    sys.modules.pop('nc_plugins.models.resnet', None)
    path = write({'custom_imports': {'imports': ['nc_plugins.models.resnet']}})
    pytest.importorskip('mmpretrain')
    read_config(path, import_modules=False)
    assert 'nc_plugins.models.resnet' not in sys.modules
    read_config(path)
    assert 'nc_plugins.models.resnet' in sys.modules


def test_an_error_in_a_python_config_names_its_line(write):
    path = write('a = 1\nb = undefined\n', 'wrong.py')
    refused(path, f"does not load: NameError: name 'undefined' is not defined .{path}, line 2.")


@pytest.mark.parametrize(
    'name',
    [
        'os.system',
        'subprocess.run',
        'builtins.eval',
        'mmengine.load',
        'mmengine.fileio.io.os.system',
        'nc_plugins.engine.runner.os.system',
        'evil',
        'evil.Thing',
        'mmdet.evil.Thing',
    ],
)
def test_types_are_registered_names(name, tmp_path, monkeypatch):
    (tmp_path / 'evil').mkdir()
    for file in ('__init__.py', 'registry.py'):
        (tmp_path / 'evil' / file).write_text("raise RuntimeError('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    with registered_types_only():
        for registry in (MODELS, HOOKS, FUNCTIONS):
            assert registry.get(name) is None
        with pytest.raises(KeyError, match=r'is not in the .* registry'):
            HOOKS.build({'type': name})
        assert HOOKS.get('IterTimerHook') is HOOKS.get('mmengine.IterTimerHook') is not None
    assert HOOKS.get('os.path.join') is not None  # a Python config is a program


def test_a_json_config_does_not_call_a_function(write, tmp_path, monkeypatch, capsys):
    train = pytest.importorskip('train', reason='needs tools/ on the path')
    monkeypatch.chdir(tmp_path)
    hook = {'type': 'os.mkdir', 'path': 'ran'}
    config = {'default_scope': 'mmengine', 'model': {'type': 'os.mkdir', 'path': 'ran'}}
    config |= {'custom_hooks': [hook], 'optim_wrapper': {'constructor': 'os.mkdir'}}
    config |= {'train_cfg': {'by_epoch': True, 'max_epochs': 1}}
    config |= {'train_dataloader': {'dataset': hook, 'sampler': hook, 'collate_fn': hook}}
    assert train.main([str(write(config)), '--work-dir', 'w']) == 1
    assert "error: unknown type 'os.mkdir'" in capsys.readouterr().err
    assert not (tmp_path / 'ran').exists()
