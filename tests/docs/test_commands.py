"""The commands of the pages: their programs exist and accept the arguments.

Nothing is trained. A Python program runs until it has read its arguments.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import subprocess
import sys

import pytest

from .pages import PAGES, ROOT, blocks, code_spans, exists, shell_words

NOT_CHECKED = {
    'cd': 'changes the folder of the reader',
    'git': 'needs the address of the repository',
    'mim': 'is not among the requirements',
    'pip': 'needs a package index',
    'source': 'changes the shell of the reader',
    '.venv/bin/pre-commit': 'installs a hook in the clone of the reader',
}
NEEDS_SLURM = ('tools/slurm_train.sh', 'tools/slurm_test.sh')
ASSIGNMENT = re.compile(r'[A-Z_]+=')


def commands(page: str) -> list[str]:
    lines = [
        part.strip()
        for block in blocks(page, 'bash')
        for line in block.replace('\\\n', ' ').splitlines()
        for part in line.split('#')[0].split('&&')
    ]
    spans = [
        span
        for span in code_spans(page)
        if re.match(r'(python \S+|tests/\S+)\.py |make [a-z]', span)
    ]
    return [line for line in lines if line] + spans


class ArgumentsRead(BaseException):
    """Ends a program when it has read its arguments."""


@pytest.fixture
def check_program(monkeypatch):
    """Return a function that checks the arguments of a Python program."""
    parse = argparse.ArgumentParser.parse_args

    def stop(parser, args=None, namespace=None):
        try:
            parse(parser, args, namespace)
        except SystemExit as error:
            if error.code:  # it is 0 after --help
                raise
        raise ArgumentsRead

    def check(program: str, arguments: list[str]) -> None:
        if 'ArgumentParser' not in (ROOT / program).read_text():
            assert not arguments, f'{program} takes no arguments'
            return
        monkeypatch.setattr(sys, 'argv', [program, *arguments])
        monkeypatch.setattr(sys, 'path', [*sys.path, str((ROOT / program).parent)])
        with pytest.raises(ArgumentsRead):
            runpy.run_path(str(ROOT / program), run_name='__main__')

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
    monkeypatch.chdir(ROOT)
    return check


def check_command(command: str, check_program) -> None:
    if command.split()[0] in NOT_CHECKED:
        return
    words = shell_words(re.sub(r'\[arguments of [^]]*\]|\.\.\.', '', command))
    while ASSIGNMENT.match(words[0]):
        words.pop(0)
    program, *arguments = words
    if program == 'nc' or words[:3] == ['python', '-m', 'nc_plugins']:
        name, *arguments = words[1 if program == 'nc' else 3 :]
        program = f'tools/{name.replace("-", "_")}.py'
    for word in words:
        if re.match(r'(configs|tools|tests|benchmarks|studies)/', word):
            assert exists(word), f'there is no {word}'
    if program == 'make':
        subprocess.run(['make', '-n', *arguments], cwd=ROOT, check=True, capture_output=True)
    elif program == 'python' and arguments[0] == '-c':
        exec(arguments[1], {})
    elif program.endswith('.py'):
        check_program(program, arguments)
    elif program == 'python':
        check_program(arguments[0], arguments[1:])
    elif program == 'torchrun':
        script = next(i for i, word in enumerate(words) if word.endswith('.py'))
        check_program(words[script], words[script + 1 :])
    elif program in NEEDS_SLURM:
        assert os.access(ROOT / program, os.X_OK)
    else:  # a script that starts tools/train.py or tools/test.py through tools/launch.py
        environment = {**os.environ, 'PYTHON': 'echo'}
        output = subprocess.check_output([program, *arguments], env=environment, text=True)
        words = output.split()
        script = max(i for i, word in enumerate(words) if word.endswith(('train.py', 'test.py')))
        check_program(os.path.relpath(words[script], ROOT), words[script + 1 :])


@pytest.mark.parametrize('page', [page for page in PAGES if commands(page)])
def test_commands(page, check_program):
    for command in dict.fromkeys(commands(page)):
        check_command(command, check_program)


@pytest.mark.parametrize(
    'command',
    [
        'python tools/train.py configs/no_such_file.py',
        'python tools/train.py --no-such-option',
        'python tools/no_such_tool.py',
        'make no-such-target',
        'tools/dist_train.sh configs/no_such_file.py 2',
        'no-such-program',
    ],
)
def test_a_wrong_command_is_found(command, check_program):
    with pytest.raises((AssertionError, SystemExit, OSError, subprocess.CalledProcessError)):
        check_command(command, check_program)
