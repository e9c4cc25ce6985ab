"""What the doctor says of refused handshakes."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from django.test import override_settings

from ws4redis.doctor.refusals import Answer, remedy_for

URL = urlsplit('wss://www.example.com/ws/')
OWN = 'https://www.example.com'
HOST_BODY = 'The Host is not in ALLOWED_HOSTS.'
ORIGIN_BODY = 'Websockets are not allowed from this origin.'


@pytest.mark.parametrize(
    ('answer', 'origin', 'allowed_hosts', 'said'),
    [
        (Answer(400, body='the client must upgrade to a websocket'), OWN, [], 'Upgrade $http_up'),
        (Answer(400, body=HOST_BODY), OWN, [], "Add 'www.example.com' to ALLOWED_HOSTS"),
        (Answer(400, body=HOST_BODY), OWN, ['.example.com'], 'Host $http_host'),
        (Answer(403, body=ORIGIN_BODY), OWN, [], 'Host $http_host'),
        (Answer(403, body=ORIGIN_BODY), OWN, [], 'SECURE_PROXY_SSL_HEADER'),
        (Answer(403, body=ORIGIN_BODY), 'https://other.example', [], 'WS4REDIS_ALLOWED_ORIGINS'),
        (Answer(403, body='Permission denied.'), OWN, [], 'WS4REDIS_ALLOWED_CHANNELS'),
        (Answer(418), OWN, [], 'Look at the logs'),
    ],
)
def test_each_cause_has_its_remedy(
    answer: Answer, origin: str, allowed_hosts: list[str], said: str
) -> None:
    with override_settings(ALLOWED_HOSTS=allowed_hosts):
        assert said in remedy_for(answer, URL, origin)
