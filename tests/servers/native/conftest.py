from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers.native.served import Serve, Served
from tests.standalone.certificates import make_certificate


@pytest.fixture
def serve() -> Iterator[Serve]:
    opened: list[Served] = []

    def make(**options: Any) -> Served:
        served = Served(**options)
        opened.append(served)
        return served

    yield make
    for served in opened:
        served.close()


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve()


@pytest.fixture(scope='module')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    certfile, keyfile = make_certificate(tmp_path_factory.mktemp('tls'))
    return str(certfile), str(keyfile)
