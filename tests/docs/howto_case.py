"""A test case that serves the project of a how-to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from tests.docs.code_blocks import DOCS
from tests.docs.pages import project_of
from tests.programs import RedisServer
from ws4redis.exceptions import HandshakeError
from ws4redis.test import WebSocketTestCase

HOWTO = DOCS / 'howto'


class HowtoTestCase(WebSocketTestCase):
    """Serve the project that a page makes its reader write."""

    @pytest.fixture(autouse=True)
    def _needs(self, redis_server: RedisServer, tmp_path: Path) -> None:
        self.directory = tmp_path

    @contextmanager
    def project(self, page: str, **settings: Any) -> Iterator[None]:
        """Serve the project of a page with some settings."""
        with project_of(HOWTO / page, self.directory), override_settings(**settings):
            yield

    def assert_refused(self, path: str, status: int, **options: Any) -> None:
        with pytest.raises(HandshakeError) as refusal:
            self.websocket(path, **options)
        assert refusal.value.status == status
