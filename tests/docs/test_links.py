"""Links between pages lead to pages and headings that exist; no page is out of reach."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.code_blocks import DOCS
from tests.docs.pages import PAGES, TEXTS, name_of
from tests.server_process import ROOT

_FENCED = re.compile(r'^(```+|:::+)[^\n]*\n.*?^\1[ \t]*$', re.MULTILINE | re.DOTALL)
_LINK = re.compile(r'\]\((?!https?:|mailto:)([^)\s]+)\)')
_ROLE = re.compile(r'\{doc\}`([^`<]+)`')


def prose_of(page: Path) -> str:
    """Return the text of a page without its code."""
    return _FENCED.sub('', page.read_text(encoding='utf-8'))


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """Return what links may name in a page: its labels, and its headings as MyST writes them."""
    text = prose_of(page)
    headings = re.findall(r'^#{1,4} (.+)$', text, re.MULTILINE)
    labels = re.findall(r'^\(([\w-]+)\)=$', text, re.MULTILINE)
    return frozenset(map(_slug, [*headings, *labels]))


def _slug(heading: str) -> str:
    """Return the anchor of a heading, in which GitHub and Sphinx differ by dashes alone."""
    plain = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading)
    return re.sub(r'[\W_]+', '-', plain.lower()).strip('-')


@pytest.mark.parametrize('page', TEXTS, ids=name_of)
def test_links_lead_to_pages_and_headings(page: Path) -> None:
    broken = []
    for link in _LINK.findall(prose_of(page)):
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (
            anchor and target.suffix == '.md' and _slug(anchor) not in anchors_of(target)
        ):
            broken.append(link)
    named = _ROLE.findall(prose_of(page))
    broken += [name for name in named if not (page.parent / f'{name}.md').exists()]
    assert broken == []


def test_each_page_is_in_a_table_of_contents() -> None:
    index = (DOCS / 'index.md').read_text(encoding='utf-8')
    listed = {
        found
        for toctree in re.findall(r'```\{toctree\}\n(.*?)```', index, re.DOTALL)
        for entry in re.findall(r'^([\w/*-]+)$', toctree, re.MULTILINE)
        for found in DOCS.glob(f'{entry}.md')
    }
    assert set(PAGES) - listed == {DOCS / 'index.md'}


def test_links_of_the_package_lead_to_pages() -> None:
    named = {
        (path, link)
        for path in (ROOT / 'ws4redis').rglob('*.py')
        for link in re.findall(r'\bdocs/([\w/-]+\.md)', path.read_text(encoding='utf-8'))
    }
    assert [link for link in named if not (DOCS / link[1]).exists()] == []
