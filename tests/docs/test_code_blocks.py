"""What the documentation shows is right: its code runs, its settings pass the checks.

The tutorials, which need environments of their own, are followed in ``test_tutorial.py`` and
``test_progress_tutorial.py``.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import redis
from django.apps import apps
from django.conf import global_settings, settings
from django.contrib.auth.models import Group
from django.core.management import get_commands, load_command_class
from django.template import Template
from django.test import override_settings

from tests.django_requests import logged_in_request, make_user
from tests.docs.code_blocks import DOCS, CodeBlock, code_blocks, commands
from tests.docs.pages import (
    TEXTS,
    assigns_settings,
    blocks_in,
    defines,
    name_of,
    project_of,
    settings_before,
    settings_of,
)
from tests.programs import uwsgi_command
from tests.requirements import require_executable
from tests.server_process import ROOT
from tests.timeouts import SOON_SECONDS
from ws4redis.conf import Conf
from ws4redis.publisher import RedisPublisher
from ws4redis.settings.checks import check_settings

DEPLOY = ROOT / 'examples' / 'deploy'
#: Blocks in these languages are no code.
TEXT_LANGUAGES = {'dart', 'kotlin', 'swift', 'text', 'json', 'http', ''}
#: Pages whose code is tested apart.
TESTED_APART = {'docs/tutorial.md', 'docs/tutorial-progress.md'}


def with_blocks_in(*languages: str) -> pytest.MarkDecorator:
    """Run a test for each page that has blocks in one of the languages."""
    pages = [page for page in TEXTS if blocks_in(page, *languages)]
    return pytest.mark.parametrize('page', pages, ids=name_of)


@pytest.mark.parametrize('page', TEXTS, ids=name_of)
def test_every_block_is_in_a_language_that_is_tested(page: Path) -> None:
    tested = {'python', 'console', 'html', 'html+django', 'js', 'jsx', 'ini', 'nginx', 'apache'}
    unknown = [
        f'{block.line}: {block.language}'
        for block in code_blocks(page)
        # Directives are Sphinx's affair.
        if block.language not in tested | TEXT_LANGUAGES and not block.language.startswith('{')
    ]
    assert unknown == []


# Python


@with_blocks_in('python')
def test_python_compiles(page: Path) -> None:
    for block in blocks_in(page, 'python'):
        compile(block.text, f'{name_of(page)}:{block.line}', 'exec')


@with_blocks_in('python')
def test_settings_exist_and_pass_the_system_checks(page: Path, tmp_path: Path) -> None:
    if name_of(page) in TESTED_APART:
        return
    with project_of(page, tmp_path):
        for block in blocks_in(page, 'python'):
            if assigns_settings(block):
                _check_settings_of(block, page)


def _check_settings_of(block: CodeBlock, page: Path) -> None:
    assigned = settings_before()
    names = {
        node.id
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.Name) and node.id.isupper()
    }
    for name in names:
        assert hasattr(Conf, name) or hasattr(global_settings, name), f'{name} is no setting'
        if hasattr(settings, name):
            value = getattr(settings, name)
            assigned[name] = list(value) if isinstance(value, list) else value
    exec(block.text, assigned)
    del assigned['__builtins__']
    with override_settings(**assigned):
        wrong = [m for m in check_settings() if not _is_of_no_interest(m.msg, page)]
    assert wrong == [], f'{name_of(page)}:{block.line}'


def _is_of_no_interest(message: str, page: Path) -> bool:
    """Tell whether a check misses code that the page does not show."""
    named = re.search(r"names '([\w.]+)', which does not import", message)
    return named is not None and not defines(page, named[1])


def _facilities_of(page: Path) -> dict[str, Any]:
    """Return the properties that a page gives to the facilities that its code uses."""
    name = 'WS4REDIS_FACILITIES'
    assigned = settings_before()
    facilities = assigned[name]
    for block in blocks_in(page, 'python'):
        if assigns_settings(block) and name in block.text:
            exec(block.text, assigned)
            # The pages of the reference show several projects.
            facilities |= assigned[name]
    return {name: facilities}


def test_a_recipe_takes_nothing_from_the_facilities_of_another() -> None:
    assigned = settings_before()
    wanted: set[str] = set()
    for page in sorted((DOCS / 'howto').glob('*.md')):
        wanted |= settings_of(page)['WS4REDIS_FACILITIES'].keys()
        for block in blocks_in(page, 'python'):
            if assigns_settings(block) and 'WS4REDIS_FACILITIES' in block.text:
                exec(block.text, assigned)
    assert len(wanted) > 5
    assert assigned['WS4REDIS_FACILITIES'].keys() == wanted


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures('redis_server')
@with_blocks_in('python')
def test_python_runs(page: Path, tmp_path: Path) -> None:
    if name_of(page) in TESTED_APART:
        return
    with project_of(page, tmp_path) as modules, override_settings(**_facilities_of(page)):
        namespace = _what_readers_have()
        for module in modules:
            namespace |= vars(importlib.import_module(module))
        namespace['__name__'] = 'snippet'
        for block in blocks_in(page, 'python'):
            is_snippet = not block.caption and not assigns_settings(block)
            if is_snippet and not _is_part_of_a_method(block):
                exec(compile(block.text, f'{name_of(page)}:{block.line}', 'exec'), namespace)


def _is_part_of_a_method(block: CodeBlock) -> bool:
    return any(
        isinstance(node, ast.Name) and node.id == 'self'
        for statement in ast.parse(block.text).body
        if not isinstance(statement, ast.ClassDef | ast.FunctionDef)
        for node in ast.walk(statement)
    )


def _what_readers_have() -> dict[str, Any]:
    """Return the names that snippets take for granted."""
    user = make_user('john', groups=['chatters'])
    request = logged_in_request(user)
    return {
        'clients': [],
        'group': Group.objects.create(name='readers'),
        'message': 'Hello',
        'publisher': RedisPublisher(facility='news', broadcast=True),
        'request': request,
        'user': user,
    }


# Commands


@with_blocks_in('console')
def test_commands_exist_and_have_their_options(page: Path, redis_client: redis.Redis) -> None:
    for block in blocks_in(page, 'console'):
        for command in commands(block):
            _check_command(shlex.split(command, comments=True), redis_client)


def _check_command(words: list[str], redis_client: redis.Redis) -> None:
    while re.fullmatch(r'\w+=.*', words[0]):
        words = words[1:]
    programme = words[0]
    if programme == 'python' and words[1].endswith('manage.py'):
        words = words[1:]
        programme = words[0]
    if programme.endswith('manage.py'):
        _check_management_command(words[1], words[2:])
    elif programme in CHECKS:
        CHECKS[programme](words[1:])
    elif programme == 'redis-cli':
        redis_client.execute_command(*words[1:])
    else:
        assert programme.rpartition('/')[2] in WELL_KNOWN, f'what is {programme}?'


WELL_KNOWN = {
    *('.', 'a2enmod', 'a2ensite', 'apt', 'brew', 'cat', 'cd', 'cp', 'curl', 'django-admin'),
    *('docker', 'git', 'gunicorn', 'kill', 'ln', 'mkdir', 'nginx', 'npm', 'openssl', 'python'),
    *('python3', 'sudo', 'sysctl', 'systemctl', 'systemd-analyze', 'tox', 'ulimit', 'umask'),
}


def _check_management_command(name: str, arguments: list[str]) -> None:
    application = get_commands().get(name, 'no such command')
    if application == 'no such command':
        assert name in {'test', 'startproject'} or apps.is_installed(name), name
        return
    command = load_command_class(str(application), name)
    # Django's own commands say of their errors what argparse does: the name of the option.
    command.create_parser('manage.py', name).parse_args(arguments)


def _check_make(words: list[str]) -> None:
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    targets = [word for word in words if '=' not in word]
    assert all(re.search(rf'^{target}:', makefile, re.MULTILINE) for target in targets), words


def _check_python(words: list[str]) -> None:
    if words[0] == '-m':
        assert words[1] in {'pip', 'venv', 'sphinx', 'pytest', 'build', 'conformance'}, words
    else:
        assert (ROOT / words[0]).exists(), words


def _check_pip(words: list[str]) -> None:
    setup = (ROOT / 'setup.py').read_text(encoding='utf-8')
    for word in words:
        extras = re.fullmatch(r'django-websocket-redis(?:\[([\w,]+)\])?(?:[<>=~].*)?', word)
        for extra in (extras[1] or '').split(',') if extras else ():
            assert not extra or f"'{extra}': [" in setup or f"EXTRAS['{extra}']" in setup, extra


def _check_uwsgi(words: list[str]) -> None:
    for word in words:
        if word.startswith('--'):
            assert word[2:].partition('=')[0] in uwsgi_options(), f'{word} is no option of uWSGI'


CHECKS: dict[str, Callable[[list[str]], None]] = {
    'make': _check_make,
    'pip': _check_pip,
    'python': _check_python,
    'uwsgi': _check_uwsgi,
    'pyuwsgi': _check_uwsgi,
}


@cache
def uwsgi_options() -> frozenset[str]:
    """Return the names of all options of uWSGI."""
    done = subprocess.run(
        [*uwsgi_command()[:1], '--help'],
        capture_output=True,
        text=True,
        timeout=SOON_SECONDS,
        check=False,
    )
    return frozenset(re.findall(r'^ +(?:-\w\|)?--([\w-]+)', done.stdout, re.MULTILINE))


# Configurations


def test_options_of_uwsgi_exist() -> None:
    unknown = [
        f'{name_of(page)}: {name}'
        for page in TEXTS
        for block in blocks_in(page, 'ini')
        for name in re.findall(r'^([\w-]+) *=', block.text, re.MULTILINE)
        if name not in uwsgi_options()
    ]
    assert unknown == []


def test_configurations_of_web_servers_are_those_that_are_tested() -> None:
    tested = {
        line.strip()
        for path in DEPLOY.rglob('*.conf')
        for line in path.read_text(encoding='utf-8').splitlines()
    }
    untested = [
        f'{name_of(page)}: {line}'
        for page in TEXTS
        for block in blocks_in(page, 'nginx', 'apache')
        for line in block.text.splitlines()
        if line.strip() not in tested
    ]
    assert untested == []


# Pages and scripts


@with_blocks_in('html', 'html+django')
def test_templates_compile(page: Path) -> None:
    for block in blocks_in(page, 'html', 'html+django'):
        Template(block.text)


#: Tells which sources of a JSON object are no modules of JavaScript.
PARSE = """
const sources = JSON.parse(require('fs').readFileSync(0));
const wrong = [];
for (const [name, source] of Object.entries(sources)) {
    try { new (require('vm').SourceTextModule)(source); }
    catch (error) { wrong.push(`${name}: ${error.message}`); }
}
console.log(JSON.stringify(wrong));
"""


def test_scripts_are_javascript() -> None:
    """That they also run is tested in ``test_frameworks.py``."""
    sources = {
        f'{name_of(page)}:{block.line}': block.text
        for page in TEXTS
        for block in blocks_in(page, 'js')
    }
    done = subprocess.run(
        [require_executable('node', 'nodejs'), '--experimental-vm-modules', '-e', PARSE],
        input=json.dumps(sources),
        capture_output=True,
        text=True,
        timeout=SOON_SECONDS,
        check=True,
    )
    assert json.loads(done.stdout) == []


def test_images_of_the_documentation_exist() -> None:
    missing = [
        f'{name_of(page)}: {target}'
        for page in TEXTS
        for target in re.findall(r'!\[[^\]]*\]\(([^)]+)\)', page.read_text(encoding='utf-8'))
        if not (page.parent / target).exists()
    ]
    assert missing == []
