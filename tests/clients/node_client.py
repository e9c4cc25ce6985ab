"""Centrifuge's JavaScript client, unmodified, in Node: tests give it code to run."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from queue import Queue
from types import TracebackType
from typing import Any, Self

from tests.npm import installed_packages
from tests.requirements import require_executable
from tests.timeouts import SOON_SECONDS


class NodeError(AssertionError):
    """The code threw; what it threw is in ``thrown``."""

    def __init__(self, thrown: Any) -> None:
        super().__init__(json.dumps(thrown))
        self.thrown = thrown


class NodeProcess:
    """A process of Node that runs a prelude, and then what it is given."""

    def __init__(self, prelude: str, *arguments: str) -> None:
        node = require_executable('node')
        script = Path(__file__).parent / prelude
        self._process = subprocess.Popen(
            [node, str(script), str(installed_packages()), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding='utf-8',
        )
        self._answers: Queue[dict[str, Any] | None] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(SOON_SECONDS)
        self._reader.join(SOON_SECONDS)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(json.loads(line))
        self._answers.put(None)

    def run(self, code: str, *, timeout: float = SOON_SECONDS) -> Any:
        """Run the body of an async function; return what it returns, raise ``NodeError``."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(code) + '\n')
        self._process.stdin.flush()
        answer = self._answers.get(timeout=timeout)
        assert answer is not None, 'node has ended'
        if 'thrown' in answer:
            raise NodeError(answer['thrown'])
        return answer.get('value')


class NodeClient(NodeProcess):
    """A process with a client ``centrifuge``, a list ``seen`` of its events, and helpers."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__('node_client.js', url, json.dumps(options))

    @classmethod
    def over_streams(cls, transport: str, url: str, **options: Any) -> NodeClient:
        """Return a client of ``sse`` or ``http_stream``; ``url`` is where both have their paths."""
        transports = [{'transport': transport, 'endpoint': f'{url}/{transport}'}]
        options.setdefault('emulationEndpoint', f'{url}/emulation')
        return cls(json.dumps(transports), **options)

    def subscribe(self, channel: str, **options: Any) -> Any:
        """Subscribe, and return what the client is told then."""
        return self.run(f'return subscribed({json.dumps(channel)}, {json.dumps(options)});')

    def received(self, channel: str, count: int) -> list[Any]:
        """Wait until some publications have come on a channel, and return the data of all."""
        data: list[Any] = self.run(f'return received({json.dumps(channel)}, {count});')
        return data

    def event(self, name: str, number: int = 1) -> Any:
        """Wait for the n-th event of a name since the beginning, and return it."""
        return self.run(f'return event({json.dumps(name)}, {number});')
