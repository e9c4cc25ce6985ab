"""Which connections are open in whose name."""

from __future__ import annotations

from ws4redis.hub.identities import FEW, Identities
from ws4redis.hub.identity import ANONYMOUS, Identity, digest_of


class Peer:
    """A connection that only has an identity."""

    identity: Identity | None = None

    def end(self, code: int, reason: str) -> None:
        raise NotImplementedError


def identity_of(user: str | None = 'mary', session: str | None = 's') -> Identity:
    return Identity(user=user, session=session, session_digest=digest_of(session))


def test_connections_are_found_by_user_and_by_session() -> None:
    identities: Identities[Peer] = Identities()
    desk, phone, john = Peer(), Peer(), Peer()
    assert identities.add(desk, identity_of())
    assert identities.add(phone, identity_of(session='t'))
    assert identities.add(john, identity_of('john', 'u'))
    assert identities.connections_of(identities.matching(user='mary')) == [desk, phone]
    session = digest_of('t')
    assert identities.connections_of(identities.matching(session=session)) == [phone]
    assert identities.matching(user='john', session=session) == []
    assert identities.matching(user='nobody') == identities.matching() == []


def test_equal_identities_are_one_object() -> None:
    identities: Identities[Peer] = Identities()
    peers = [Peer() for _ in range(3)]
    assert [identities.add(peer, identity_of()) for peer in peers] == [True, False, False]
    assert len({id(peer.identity) for peer in peers}) == len(identities) == 1


def test_nothing_is_left_when_the_last_connection_has_gone() -> None:
    identities: Identities[Peer] = Identities()
    for number in (1, FEW, 5 * FEW):
        peers = [Peer() for _ in range(number)]
        for place, peer in enumerate(peers):
            identities.add(peer, identity_of(session=f's{place % (2 * FEW)}'))
        assert set(identities.connections_of(identities.matching(user='mary'))) == set(peers)
        for peer in peers:
            identities.remove(peer)
            # Twice makes no difference.
            identities.remove(peer)
            assert peer.identity is None
        assert not len(identities)
        assert not any((identities._by_user, identities._by_user_id, identities._by_session))


def test_who_is_nobody_is_not_noted() -> None:
    identities: Identities[Peer] = Identities()
    peer = Peer()
    assert not identities.add(peer, ANONYMOUS)
    assert peer.identity is None
