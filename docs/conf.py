"""Sphinx builds the documentation from this: `make docs`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# autodoc imports modules that need Django's settings.
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')
import django  # noqa: E402

django.setup()

project = 'django-websocket-redis'
author = 'The django-websocket-redis contributors'
copyright = f'2026, {author}'
_source = (ROOT / 'ws4redis' / '__init__.py').read_text(encoding='utf-8')
release = re.search(r"__version__ = '([^']+)'", _source)[1]  # type: ignore[index]
version = '.'.join(release.split('.')[:2])

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.viewcode']
exclude_patterns = ['_build']

myst_enable_extensions = ['colon_fence', 'deflist', 'fieldlist']
myst_heading_anchors = 3

autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_typehints_format = 'short'
# Longer signatures have one parameter per line.
python_maximum_signature_line_length = 88

html_theme = 'furo'
html_title = f'{project} {version}'
html_static_path: list[str] = []
