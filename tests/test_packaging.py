"""What is built and uploaded: the wheel and the sdist, not the checkout.

That the wheel also serves a project in an empty environment is tested by
``docs/test_tutorial.py``, which follows the tutorial with it.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.distributions import run
from tests.requirements import require
from tests.server_process import ROOT
from tests.timeouts import scaled

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(scaled(600))]


def version_in_source() -> str:
    source = (ROOT / 'ws4redis' / '__init__.py').read_text(encoding='utf-8')
    match = re.search(r"__version__ = '(.+)'", source)
    assert match
    return match[1]


def files_of_package() -> set[str]:
    tracked = run('git', 'ls-files', 'ws4redis', cwd=ROOT).split()
    return {name for name in tracked if (ROOT / name).exists()}


def test_twine_accepts_both_distributions(wheel: Path, sdist: Path) -> None:
    output = run(sys.executable, '-m', 'twine', 'check', '--strict', wheel, sdist, cwd=ROOT)
    assert output.count('PASSED') == 2


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name}
    assert names == files_of_package()
    assert {'ws4redis/py.typed', 'ws4redis/static/js/ws4redis.js'} <= names


def test_the_sdist_holds_every_file_of_the_package_and_its_licence(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert files_of_package() <= names
    assert {'LICENSE', 'README.md', 'CHANGELOG.md', 'setup.py'} <= names
    # Tests need all of the checkout: some of them alone would be of no use.
    folders = {name.partition('/')[0] for name in names if '/' in name}
    assert folders == {'ws4redis', 'django_websocket_redis.egg-info'}


def test_the_metadata_says_what_is_needed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        metadata = archive.read(path).decode()
    assert 'Name: django-websocket-redis\n' in metadata
    assert f'Version: {version_in_source()}\n' in metadata
    assert 'Requires-Python: >=3.11\n' in metadata
    assert re.search(r'^License(-Expression)?: MIT$', metadata, flags=re.MULTILINE)
    required = [line for line in metadata.splitlines() if line.startswith('Requires-Dist: ')]
    needed = sorted(line.split()[1] for line in required if 'extra ==' not in line)
    assert [re.split('[<>=]', name)[0] for name in needed] == [
        'Django',
        'PyJWT',
        'gevent',
        'httptools',
        'redis[hiredis]',
    ]
    for extra in ['uwsgi', 'pyuwsgi', 'wsaccel']:
        assert f'Provides-Extra: {extra}\n' in metadata


RELATIVE_LINK = re.compile(r'\]\((?!https?:|#)')


def test_no_link_of_the_description_leads_nowhere(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        built = archive.read(path).decode()
    assert '## How it compares' in built
    assert RELATIVE_LINK.findall(built) == []
    program = """
import os, runpy, setuptools
os.environ['REPOSITORY_URL'] = 'https://example.org/project/'
setuptools.setup = lambda **metadata: print(metadata['project_urls'], metadata['long_description'])
runpy.run_path('setup.py')
"""
    released = run(sys.executable, '-c', program, cwd=ROOT)
    assert released.startswith("{'Source': 'https://example.org/project'}")
    assert RELATIVE_LINK.findall(released) == []
    at = f'https://example.org/project/{{}}/{version_in_source()}/docs'
    assert f']({at.format("raw")}/images/demo.svg)' in released
    assert f'[tutorial]({at.format("blob")}/tutorial.md)' in released


def test_the_wheel_imports_in_an_empty_environment(installed_python: Path, tmp_path: Path) -> None:
    program = 'import ws4redis; print(ws4redis.__version__, ws4redis.__file__)'
    version, path = run(installed_python, '-c', program, cwd=tmp_path).split()
    assert version == version_in_source()
    assert not Path(path).is_relative_to(ROOT)


def test_every_module_of_the_wheel_imports_without_the_extras(
    installed_python: Path, tmp_path: Path
) -> None:
    program = """
import importlib, pkgutil
import django
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
settings.configure(
    SECRET_KEY='x',
    INSTALLED_APPS=[
        'django.contrib.auth', 'django.contrib.contenttypes', 'django.contrib.sessions', 'ws4redis'
    ],
)
django.setup()
import ws4redis
for module in pkgutil.walk_packages(ws4redis.__path__, 'ws4redis.'):
    # Only pytest loads its plugin.
    if module.name == 'ws4redis.pytest_plugin':
        continue
    try:
        importlib.import_module(module.name)
    except ImproperlyConfigured as exc:
        assert module.name == 'ws4redis.dashboard.metrics', exc
        assert 'pip install django-websocket-redis[metrics]' in str(exc)
from django.contrib.staticfiles import finders
print(finders.find('js/ws4redis.js'))
"""
    output = run(installed_python, '-c', program, cwd=tmp_path)
    assert output.strip().endswith('ws4redis/static/js/ws4redis.js')


def test_the_checkout_is_complete_without_files_that_git_ignores() -> None:
    require((ROOT / '.git').exists(), 'this is no clone')
    ignored = run('git', 'ls-files', '--cached', '--ignored', '--exclude-standard', cwd=ROOT)
    assert ignored == ''
