"""Package ws4redis. Tools are configured in pyproject.toml, all metadata is here."""

from __future__ import annotations

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def version() -> str:
    """Read ``__version__`` without importing the package, whose dependencies may not be there."""
    source = (HERE / 'ws4redis' / '__init__.py').read_text(encoding='utf-8')
    match = re.search(r"^__version__ = '([^']+)'$", source, flags=re.MULTILINE)
    if match is None:
        raise RuntimeError('ws4redis/__init__.py names no __version__')
    return match[1]


# Where the checkout is to be seen, as 'https://example.org/project'; known where it is released.
REPOSITORY_URL = os.environ.get('REPOSITORY_URL', '').rstrip('/')
RELATIVE_LINK = re.compile(r'(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)')


def long_description() -> str:
    """Return README.md without links that lead nowhere on the page of a package index.

    Relative ones lead to the repository at this version; without one, their text alone stays.
    """

    def absolute(link: re.Match[str]) -> str:
        is_image, text, path = link.groups()
        if not REPOSITORY_URL:
            return '' if is_image else text
        kind = 'raw' if is_image else 'blob'
        return f'{is_image}[{text}]({REPOSITORY_URL}/{kind}/{version()}/{path})'

    return RELATIVE_LINK.sub(absolute, (HERE / 'README.md').read_text(encoding='utf-8'))


# uWSGI is compiled from source, pyuwsgi is the same server as a binary wheel.
EXTRAS = {
    'uwsgi': ['uWSGI>=2.0.26'],
    'pyuwsgi': ['pyuwsgi>=2.0.28'],
    'wsaccel': ['wsaccel>=0.6.7'],
    # Its masking in C alone: the fastest there is, for those whose browsers send much.
    'speedups': ['websockets>=14'],
    'docs': ['sphinx>=8', 'furo>=2024.8.6', 'myst-parser>=4'],
    'demo': ['pyuwsgi>=2.0.28', 'wsaccel>=0.6.7'],
    'test': [
        'celery>=5.4',
        'cent>=5',
        'centrifuge-python>=0.7',
        'coverage[toml]>=7.17',
        'cryptography>=43',
        'djangorestframework>=3.15',
        'gunicorn>=23',
        'hypothesis>=6.100',
        'import-linter>=2',
        'playwright>=1.45',
        'prometheus-client>=0.20',
        'rich>=13',
        'psutil>=6',
        'pytest>=8.2',
        'pytest-django>=4.9',
        'pytest-timeout>=2.3',
        'pytest-xdist>=3.6',
        'pyuwsgi>=2.0.28',
        'PyYAML>=6',
        'websockets>=13',
        'wsproto>=1.2',
    ],
    'lint': [
        'import-linter>=2',
        'ruff>=0.6',
        'mypy>=1.11',
        'django-stubs[compatible-mypy]>=5.1',
        'types-psutil',
        'types-PyYAML',
    ],
    'metrics': ['prometheus-client>=0.20'],
    # Encrypts what handshakes carry through Redis to handlers in other processes.
    'multiprocess': ['cryptography>=43'],
    'live': ['rich>=13'],
    'package': ['build>=1.2', 'twine>=6.1'],
}
EXTRAS['dev'] = sorted(
    {
        'pre-commit>=3',
        'tox>=4',
        *(
            requirement
            for extra, requirements in EXTRAS.items()
            if extra != 'uwsgi'
            for requirement in requirements
        ),
    }
)

setup(
    name='django-websocket-redis',
    version=version(),
    description='Websockets for Django, with Redis as message queue',
    long_description=long_description(),
    long_description_content_type='text/markdown',
    project_urls={'Source': REPOSITORY_URL} if REPOSITORY_URL else {},
    author='The django-websocket-redis contributors',
    license='MIT',
    license_files=['LICENSE'],
    keywords=['django', 'websocket', 'redis', 'uwsgi', 'gevent', 'pubsub'],
    classifiers=[
        'Development Status :: 5 - Production/Stable',
        'Environment :: Web Environment',
        'Framework :: Django',
        'Framework :: Django :: 5.2',
        'Framework :: Django :: 6.0',
        'Framework :: Django :: 6.1',
        'Intended Audience :: Developers',
        'Operating System :: POSIX',
        'Programming Language :: JavaScript',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Internet :: WWW/HTTP :: Dynamic Content',
        'Typing :: Typed',
    ],
    packages=find_packages(include=['ws4redis', 'ws4redis.*']),
    package_data={
        'ws4redis': [
            'py.typed',
            'broker/scripts/*.lua',
            'static/**/*',
            'templates/**/*',
            'locale/**/*',
        ]
    },
    zip_safe=False,
    python_requires='>=3.11',
    install_requires=[
        'Django>=5.2',
        'gevent>=24.2',
        'httptools>=0.6.4',
        'PyJWT>=2.10',
        'redis[hiredis]>=5.1',
    ],
    extras_require=EXTRAS,
    entry_points={'pytest11': ['ws4redis = ws4redis.pytest_plugin']},
)
