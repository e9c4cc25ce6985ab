"""Which options of uWSGI websockets get on with."""

from __future__ import annotations

from typing import Any

import pytest

from ws4redis.servers.uwsgi_options import concerns_about, fatal_concern

SOUND: dict[str, Any] = {'gevent': b'100', 'http': b':80', 'http-websockets': True}


def texts(options: dict[str, Any]) -> list[str]:
    return [str(concern) for concern in concerns_about(options)]


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in SOUND.items() if key != name}


@pytest.mark.parametrize(
    'options',
    [
        SOUND,
        {'threads': '10', 'socket': '/run/web.socket'},
        {**without('http-websockets'), 'http-raw-body': 'true'},
        {**SOUND, 'max-requests': 'false', 'reload-on-rss': '0', 'idle': b'0'},
        {**SOUND, 'gevent-early-monkey-patch': True},
        {**SOUND, 'gevent-monkey-patch': True, 'gevent-early-monkey-patch': True},
    ],
)
def test_sound_options_are_no_concern(options: dict[str, Any]) -> None:
    assert texts(options) == []


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        (without('gevent'), '--gevent 100'),
        (without('http-websockets'), '--http-websockets'),
        ({**SOUND, 'http-websockets': b'false'}, '--http-websockets'),
        ({'gevent': '9', 'https': ':443,cert,key'}, '--http-websockets'),
        ({'gevent': '9', 'https-socket': ':443,cert,key'}, '--https-socket'),
    ],
)
def test_what_lets_no_websocket_work_is_fatal(options: dict[str, Any], named: str) -> None:
    concern = fatal_concern(options)
    assert concern is not None
    assert named in str(concern)


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'enable-threads': True, 'http-socket': ':80'}, '--gevent 100'),
        # Websockets may come by the workers' own socket.
        ({**without('http-websockets'), 'http-socket': ':81'}, '--http-websockets'),
        ({**SOUND, 'https-socket': ':443,cert,key'}, '--https-socket'),
        *(
            ({**SOUND, name: '1'}, f'--{name} ')
            for name in (
                'max-requests',
                'max-worker-lifetime',
                'idle',
                'cheaper',
                'reload-on-rss',
                'reload-on-exception',
                'evil-reload-on-as',
            )
        ),
        ({**SOUND, 'gevent-monkey-patch': b'true'}, '--gevent-early-monkey-patch'),
    ],
)
def test_what_spoils_websockets_is_named_but_not_fatal(options: dict[str, Any], named: str) -> None:
    assert fatal_concern(options) is None
    (text,) = texts(options)
    assert named in text
