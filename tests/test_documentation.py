"""The documentation builds, and agrees with what it documents."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import require
from tests.server_process import ROOT
from tests.timeouts import scaled

BUILD_SECONDS = scaled(300)


@pytest.mark.slow
@pytest.mark.timeout(BUILD_SECONDS)
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    require(importlib.util.find_spec('sphinx'), 'Sphinx is not installed')
    done = subprocess.run(
        [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', ROOT / 'docs', tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert (tmp_path / 'index.html').exists()


@pytest.mark.parametrize('path', ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'])
def test_links_to_files_lead_somewhere(path: str) -> None:
    text = (ROOT / path).read_text(encoding='utf-8')
    targets = re.findall(r'\]\((?!https?:|#|mailto:)([^)#]+)', text)
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_changelog_starts_with_the_version_of_the_package() -> None:
    from ws4redis import __version__

    released = __version__.partition('.dev')[0]
    heading = re.search(r'^## (\S+)', (ROOT / 'CHANGELOG.md').read_text(), flags=re.MULTILINE)
    assert heading
    assert heading[1] == released


def targets_in(text: str) -> set[str]:
    """Return the targets of make that a text tells its reader to make."""
    commands = re.findall(r'^ {4}(?:\$ )?make ([^#\n]+)|`make ([^`]+)`', text, flags=re.MULTILINE)
    words = ' '.join(first or second for first, second in commands)
    # Neither options nor variables, whose values may hold spaces.
    return set(re.findall(r'(?<!\S)[a-z-]+(?!\S)', re.sub(r"\w+=('[^']*'|\S*)", '', words)))


@pytest.mark.parametrize('path', ['README.md', 'CONTRIBUTING.md', '.ci/run'])
def test_what_one_is_told_to_make_is_in_the_makefile(path: str) -> None:
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    targets = set(re.findall(r'^([a-z-]+):', makefile, flags=re.MULTILINE))
    text = (ROOT / path).read_text(encoding='utf-8')
    if path == '.ci/run':
        named = set(re.findall(r'\bmake ([a-z]+)(?= |$)', text, flags=re.MULTILINE))
    else:
        named = targets_in(text)
    assert named
    assert named <= targets


def test_every_target_says_what_it_is_for() -> None:
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    phony = set(re.findall(r'^\.PHONY: ([a-z-]+)$', makefile, flags=re.MULTILINE))
    explained = set(re.findall(r'^([a-z-]+):.*## ', makefile, flags=re.MULTILINE))
    assert explained == phony


def test_contributors_are_told_how_to_run_each_kind_of_tests() -> None:
    told = targets_in((ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8'))
    assert {
        'test',
        'unit',
        'gevent',
        'coverage',
        'matrix',
        'conformance',
        'faults',
        'bench',
    } <= told
