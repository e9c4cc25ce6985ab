"""The pages of the documentation, and the project that a page makes its reader write."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.docs.code_blocks import DOCS, CodeBlock, code_blocks
from tests.requirements import require
from tests.server_process import ROOT

PAGES = sorted(
    page for page in DOCS.rglob('*.md') if not page.relative_to(DOCS).parts[0].startswith('_')
)
#: What pages take for granted that ws4redis does not need.
PACKAGES_OF_READERS = ('celery', 'rest_framework')
TEXTS = [ROOT / 'README.md', *PAGES]


def name_of(page: Path) -> str:
    """Return how a test calls a page."""
    return str(page.relative_to(ROOT))


def blocks_in(page: Path, *languages: str) -> list[CodeBlock]:
    """Return the blocks of a page in some languages, in their order."""
    return [block for block in code_blocks(page) if block.language in languages]


def assigns_settings(block: CodeBlock) -> bool:
    """Tell whether a block of Python does nothing but to set settings."""
    body = ast.parse(block.text).body
    return bool(body) and all(
        isinstance(node, ast.Assign | ast.AugAssign)
        and all(isinstance(t, ast.Name) and t.id.isupper() for t in _targets(node))
        for node in body
    )


def _targets(node: ast.Assign | ast.AugAssign) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def settings_before() -> dict[str, Any]:
    """Return what a project's settings have before a page adds to them."""
    return {'WS4REDIS_FACILITIES': {}}


def settings_of(page: Path) -> dict[str, Any]:
    """Return what the blocks of a page assign that do nothing but to set settings."""
    assigned = settings_before()
    for block in blocks_in(page, 'python'):
        if assigns_settings(block):
            exec(block.text, assigned)
    assigned.pop('__builtins__', None)
    return assigned


def modules_of(page: Path) -> dict[str, str]:
    """Return the modules of the reader's project by their names, settings left out.

    They are the blocks whose caption is the path of a module in a package.
    """
    modules: dict[str, str] = {}
    for block in blocks_in(page, 'python'):
        path = Path(block.caption)
        if len(path.parts) > 1 and path.suffix == '.py' and not assigns_settings(block):
            name = '.'.join(path.with_suffix('').parts)
            modules[name] = f'{modules.get(name, "")}\n{block.text}'
    return modules


def defines(page: Path, dotted_path: str) -> bool:
    """Tell whether a page shows what a dotted path leads to."""
    module, _, name = dotted_path.rpartition('.')
    body = ast.parse(modules_of(page).get(module, '')).body
    return any(getattr(node, 'name', None) == name for node in body)


@contextmanager
def project_of(page: Path, directory: Path) -> Iterator[list[str]]:
    """Make the modules of a page importable from a directory; yield their names."""
    modules = modules_of(page)
    for package in PACKAGES_OF_READERS:
        if any(f'from {package}' in text for text in modules.values()):
            require(find_spec(package), f'{package} is not installed')
    for name, text in modules.items():
        path = directory.joinpath(*name.split('.')).with_suffix('.py')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')
    sys.path.insert(0, str(directory))
    importlib.invalidate_caches()
    try:
        yield list(modules)
    finally:
        sys.path.remove(str(directory))
        packages = {name.partition('.')[0] for name in modules}
        for name in [n for n in sys.modules if n.partition('.')[0] in packages]:
            del sys.modules[name]
        importlib.invalidate_caches()
        _forget_tasks(packages)


def _forget_tasks(packages: set[str]) -> None:
    """Let Celery forget the tasks of a page, whose names the next one may use again."""
    if 'celery' in sys.modules:
        tasks = sys.modules['celery'].current_app.tasks
        for name in [n for n in tasks if n.partition('.')[0] in packages]:
            tasks.pop(name)
