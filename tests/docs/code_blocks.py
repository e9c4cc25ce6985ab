"""The code blocks of a page of the documentation, as a reader would type them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.server_process import ROOT

DOCS = ROOT / 'docs'

_FENCE = re.compile(
    r'^(?P<fence>```+)(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$', re.MULTILINE | re.DOTALL
)
_OPTION = re.compile(r':(\w+): *(.*)')


@dataclass(frozen=True)
class CodeBlock:
    """One fenced block.

    ``language`` is what follows the fence, ``caption`` that of a ``{code-block}`` directive, ``''``
    without; ``line`` the number of its first line.
    """

    language: str
    caption: str
    text: str
    line: int


def code_blocks(page: Path) -> Iterator[CodeBlock]:
    """Yield the code blocks of a page of Markdown (MyST), in their order."""
    source = page.read_text(encoding='utf-8')
    for match in _FENCE.finditer(source):
        language = match['info'].strip()
        body = match['body']
        caption = ''
        if language.startswith('{code-block}'):
            language = language.removeprefix('{code-block}').strip()
            while option := _OPTION.match(body):
                if option[1] == 'caption':
                    caption = option[2].strip()
                body = body.partition('\n')[2]
        line = source.count('\n', 0, match.start('body')) + 1
        yield CodeBlock(language, caption, body, line)


def commands(block: CodeBlock) -> list[str]:
    """Return the commands of a console block: what follows a prompt."""
    return [line[2:] for line in block.text.splitlines() if line.startswith('$ ')]
