from __future__ import annotations

from tests.dashboard.snapshots import snapshot
from ws4redis.broker.census import MAX_USERS
from ws4redis.servers.overview import census_of, overview_of


def test_nothing_is_an_overview_as_well() -> None:
    overview = overview_of([])
    assert overview['processes'] == overview['facilities'] == []
    assert overview['totals']['sent_per_second'] == 0
    assert overview['past'] == {'open': [], 'sent': [], 'received': [], 'lag': []}


def test_processes_are_added_up() -> None:
    first, second = snapshot(1), snapshot(2, open=50)
    second['facilities'] = [['chat/7', 10.0, 50], ['news', 1, 1]]
    overview = overview_of([first, second])
    assert overview['totals']['open'] == 150
    assert overview['totals']['processes'] == 2
    assert [process['pid'] for process in overview['processes']] == [1, 2]
    # Each process gets each message.
    assert overview['facilities'] == [
        {'name': 'chat/7', 'messages_per_second': 12.5, 'websockets': 150},
        {'name': 'news', 'messages_per_second': 1, 'websockets': 1},
    ]


def test_the_past_of_processes_ends_at_the_same_time() -> None:
    first, second = snapshot(1), snapshot(2)
    first['past'] = [[1, 1, 1, 0.1], [2, 2, 2, 0.2]]
    second['past'] = [[10, 10, 10, 0.05]]
    assert overview_of([first, second])['past'] == {
        'open': [1, 12],
        'sent': [1, 12],
        'received': [1, 12],
        'lag': [0.1, 0.2],
    }


def test_what_another_version_tells_is_left_out() -> None:
    strange = {
        'statistics': {'open': 'many'},
        'rates': 7,
        'past': [[1], 'x', [1, 2, 3, None]],
        'facilities': ['x', [1]],
    }
    overview = overview_of([{**strange, 'statistics': {}}, snapshot(2)])
    assert overview['totals']['open'] == 100
    assert overview['past']['open'] == [100]


def answer(*names: str, open_count: int = 1) -> dict[str, object]:
    connections = [{'user': name, 'since': 1} for name in names]
    return {'open': open_count, 'names': list(names), 'connections': connections}


def test_pages_of_users_leave_nobody_out() -> None:
    users = [f'user-{n:04}' for n in range(170)]
    seen: list[str] = []
    after = ''
    for _ in range(10):
        of_processes = [users[::2], users[1::2], users[::3]]
        answers = [
            answer(*[name for name in mine if name > after][:MAX_USERS]) for mine in of_processes
        ]
        page = census_of(answers)
        seen += sorted({connection['user'] for connection in page['connections']})
        after = page['after']
        if not after:
            break
    assert seen == users


def test_a_single_page_has_no_next_one() -> None:
    page = census_of([answer('mary', open_count=7), answer('john', 'mary')])
    assert [connection['user'] for connection in page['connections']] == ['john', 'mary', 'mary']
    assert page['after'] == ''
    assert page['open'] == 8
