"""Who a peer is, and when it attends, with a real Redis."""

from __future__ import annotations

import pytest

from tests.hub.presence_rig import CHAT, Database, ids
from tests.hub.rig import Home
from ws4redis.broker.presence import Member
from ws4redis.hub import presence as module
from ws4redis.hub.attendance import member_of
from ws4redis.hub.identity import Identity
from ws4redis.hub.options import HubOptions
from ws4redis.servers.process import connect_to_redis
from ws4redis.settings.facilities import FacilityOptions


class Peer:
    def __init__(self, identity: Identity | None = None) -> None:
        self.identity = identity


def test_a_member_is_a_user_else_a_session_else_a_connection() -> None:
    user = Identity(user='john', session='s' * 32, info={'color': 'red'})
    assert member_of(Peer(user)) == Member('user:john', 'john', {'color': 'red'})
    first, second = (member_of(Peer(Identity(session='s' * 32))) for _ in range(2))
    assert first == second
    assert first.id.startswith('session:')
    assert 's' * 32 not in first.id
    assert first.user is None
    nobody = {member_of(Peer(identity)).id for identity in (None, None, Identity())}
    assert len(nobody) == 3


def test_peers_of_channels_with_presence_are_members_until_they_close_and_ten_seconds_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, 'GRACE_SECONDS', 0.3)
    options = HubOptions(
        key_prefix='',
        facility_of_channel=lambda name: FacilityOptions(presence=name == 'broadcast:chat'),
    )
    with Home(connect=connect_to_redis, options=options) as hub:
        peers = [hub.peer() for _ in range(3)]
        for peer, user in zip(peers, ('john', 'mary', 'peter'), strict=True):
            peer.websocket.identity = Identity(user=user)
            for name in ('broadcast:chat', 'broadcast:news'):
                hub.join(peer.websocket, name, lambda joined: None)
        hub.turn_until(lambda: database.members() == ids('john', 'mary', 'peter'))
        assert database.client.keys('*news*') == []
        seen: list[str] = []
        hub.mirrors.listen(
            CHAT,
            lambda channel, kind, who: seen.append(f'{kind} {who.user}'),
            lambda members: seen.append(str(len(members))),
        )
        hub.turn_until(lambda: seen == ['3'])
        hub.leave(peers[0].websocket, ['broadcast:chat'])
        hub.turn_until(lambda: seen == ['3', 'L john'])
        peers[1].socket.close()
        hub.turn_for(0.15)
        assert database.members() == ids('mary', 'peter')
        hub.turn_until(lambda: seen == ['3', 'L john', 'L mary'])
        peers[2].socket.close()
        hub.turn_until(lambda: not database.client.keys('*chat*'))


def test_who_unsubscribes_or_was_ended_leaves_without_a_grace(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, 'GRACE_SECONDS', 3600)
    options = HubOptions(facility_of_channel=lambda name: FacilityOptions(presence=True))
    with Home(connect=connect_to_redis, options=options) as hub:
        peers = {user: hub.peer() for user in ('ended', 'leaves', 'lost')}
        for user, peer in peers.items():
            peer.websocket.identity = Identity(user=user)
            hub.join(peer.websocket, 'broadcast:chat', lambda joined: None)
        hub.turn_until(lambda: database.members() == ids(*peers))
        peers['lost'].socket.close()
        peers['ended'].websocket.end(4001, 'logged out')
        hub.leave(peers['leaves'].websocket, ['broadcast:chat'])
        hub.turn_until(lambda: database.members() == ids('lost'))
        hub.turn_for(0.1)
        assert database.members() == ids('lost')
