"""How many websockets there may be: in all, per address and per user."""

from __future__ import annotations

import resource
import threading
from typing import Any

import pytest
from django.test import override_settings

from ws4redis.exceptions import HandshakeError
from ws4redis.handshake.connection_limits import (
    MOST_CONNECTIONS_BY_DEFAULT,
    RESERVED_DESCRIPTORS,
    ConnectionLimits,
    Place,
    client_address,
    max_connections,
)


def environ(address: str = '192.0.2.1', **headers: str) -> dict[str, Any]:
    return {'REMOTE_ADDR': address, **headers}


def refusal(take: Any, *args: Any) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        take(*args)
    return caught.value


@override_settings(WS4REDIS_MAX_CONNECTIONS=2)
def test_when_all_places_are_taken_the_next_is_refused_with_503_until_one_is_given_back() -> None:
    limits = ConnectionLimits()
    first = limits.take_place(environ())
    limits.take_place(environ())
    error = refusal(limits.take_place, environ())
    assert error.status == 503
    assert 'Retry-After' in error.headers
    assert limits.taken == 2
    limits.give_back(first)
    limits.take_place(environ())
    assert limits.taken == 2


def test_a_place_is_given_back_once_and_takes_no_user_afterwards() -> None:
    limits = ConnectionLimits()
    first, _ = limits.take_place(environ()), limits.take_place(environ())
    limits.give_back(first)
    limits.give_back(first)
    assert limits.taken == 1
    assert refusal(limits.take_place_of_user, first, 'john').status == 503
    assert limits._by_user == {}


@override_settings(WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS=1)
def test_each_address_has_its_own_limit() -> None:
    limits = ConnectionLimits()
    place = limits.take_place(environ('192.0.2.1'))
    limits.take_place(environ('192.0.2.2'))
    assert refusal(limits.take_place, environ('192.0.2.1')).status == 429
    assert limits.taken == 2
    limits.give_back(place)
    limits.take_place(environ('192.0.2.1'))


@override_settings(WS4REDIS_MAX_CONNECTIONS_PER_USER=2)
def test_each_user_has_a_limit() -> None:
    limits = ConnectionLimits()
    places = [limits.take_place(environ()) for _ in range(4)]
    limits.take_place_of_user(places[0], 'john')
    limits.take_place_of_user(places[1], 'john')
    limits.take_place_of_user(places[2], 'mary')
    assert refusal(limits.take_place_of_user, places[3], 'john').status == 429
    limits.give_back(places[3])
    limits.give_back(places[0])
    place = limits.take_place(environ())
    limits.take_place_of_user(place, 'john')


@override_settings(WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS=5, WS4REDIS_MAX_CONNECTIONS_PER_USER=5)
def test_places_that_were_given_back_leave_nothing_behind() -> None:
    limits = ConnectionLimits()
    for number in range(100):
        place = limits.take_place(environ(f'192.0.2.{number}'))
        limits.take_place_of_user(place, f'user {number}')
        limits.give_back(place)
    assert limits.taken == 0
    assert not limits._by_address
    assert not limits._by_user


@override_settings(WS4REDIS_MAX_CONNECTIONS=100)
def test_threads_never_take_more_places_than_there_are() -> None:
    limits = ConnectionLimits()
    taken: list[Place] = []

    def take() -> None:
        for _ in range(50):
            try:
                taken.append(limits.take_place(environ()))
            except HandshakeError:
                pass

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == limits.taken == 100


def test_by_default_the_descriptors_of_the_process_are_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def allow(descriptors: int) -> int:
        monkeypatch.setattr(resource, 'getrlimit', lambda _: (descriptors, descriptors))
        return max_connections()

    assert allow(10_000) == 10_000 - RESERVED_DESCRIPTORS
    # Of few, half.
    assert allow(300) == 150
    # Where there is practically no limit of descriptors, there is one of memory.
    assert allow(resource.RLIM_INFINITY) == MOST_CONNECTIONS_BY_DEFAULT
    assert allow(1_000_000_000) == MOST_CONNECTIONS_BY_DEFAULT


def test_the_address_is_that_of_the_connection_whatever_the_client_says() -> None:
    assert client_address(environ(HTTP_X_FORWARDED_FOR='6.6.6.6')) == '192.0.2.1'


@pytest.mark.parametrize('name', ['X-Forwarded-For', 'HTTP_X_FORWARDED_FOR'])
def test_a_proxys_header_names_the_client_by_its_last_entry(name: str) -> None:
    with override_settings(WS4REDIS_CLIENT_ADDRESS_HEADER=name):
        assert (
            client_address(environ(HTTP_X_FORWARDED_FOR='6.6.6.6, 198.51.100.7')) == '198.51.100.7'
        )
        assert client_address(environ(HTTP_X_FORWARDED_FOR='198.51.100.7')) == '198.51.100.7'
        # Around the proxy.
        assert client_address(environ()) == '192.0.2.1'
        assert client_address(environ(HTTP_X_FORWARDED_FOR='')) == '192.0.2.1'


def test_a_server_on_a_unix_socket_knows_no_address() -> None:
    assert client_address({}) == ''
