"""Questions to all processes that hold connections, and their answers, by way of Redis.

A question is an entry of a short stream, and rings a bell on a channel; each process reads it, and
puts its answer into a list of that question. All keys hash to the slot of the snapshots.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

import redis

from ws4redis.broker.publication import Command
from ws4redis.conf import conf

MAX_QUESTIONS: Final = 100
ANSWER_SECONDS: Final = 10
#: The users of an answer, and the connections of all of them.
MAX_USERS: Final = 50
MAX_CONNECTIONS: Final = 200


@dataclass(frozen=True, slots=True)
class Question:
    """Who is connected: one user, or some, in the order of their names, after a name."""

    user: str = ''
    after: str = ''

    @classmethod
    def from_json(cls, text: bytes) -> Question:
        """Read a question; raise ``ValueError`` for anything else."""
        values: Any = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError('a question is an object')
        found = {name: values.get(name, '') for name in ('user', 'after')}
        if not all(isinstance(value, str) for value in found.values()):
            raise ValueError('the names in a question are strings')
        return cls(**found)


def bell(prefix: str) -> str:
    """Return the channel that tells of questions; ``prefix`` is that of the settings."""
    return f'{prefix}ws4redis:{{processes}}:bell'


def questions_key(prefix: str) -> str:
    return f'{prefix}ws4redis:{{processes}}:questions'


def _answers_key(prefix: str, number: str) -> str:
    return f'{prefix}ws4redis:{{processes}}:answers:{number}'


def newest_question_command(prefix: str) -> Command:
    return (b'XREVRANGE', questions_key(prefix).encode(), b'+', b'-', b'COUNT', b'1')


def questions_command(prefix: str, after: bytes) -> Command:
    """Return the command that reads the questions after one of them."""
    return (b'XRANGE', questions_key(prefix).encode(), b'(' + after, b'+', b'COUNT', b'20')


def answer_commands(prefix: str, number: bytes, answer: Any) -> list[Command]:
    key = _answers_key(prefix, number.decode()).encode()
    value = json.dumps(answer, separators=(',', ':')).encode()
    return [(b'RPUSH', key, value), (b'EXPIRE', key, str(ANSWER_SECONDS).encode())]


def ask(client: redis.Redis, prefix: str, question: Question) -> str:
    """Ask all processes, and return the number of the question; raise redis-py's errors.

    Who asks does not wait, since the loop that is to answer may run in the very same thread.
    """
    with client.pipeline(transaction=True) as pipeline:
        key = questions_key(prefix)
        pipeline.xadd(key, {'q': json.dumps(asdict(question))}, maxlen=MAX_QUESTIONS)
        pipeline.expire(key, 3600)
        word = conf.publish_word.decode()
        pipeline.execute_command(word, bell(prefix), '')  # type: ignore[no-untyped-call]
        number: bytes = pipeline.execute()[0]
    return number.decode()


def read_answers(client: redis.Redis, prefix: str, number: str) -> list[dict[str, Any]]:
    """Return the answers to a question that have come until now; raise redis-py's errors."""
    found = cast('list[bytes]', client.lrange(_answers_key(prefix, number), 0, -1))
    return [answer for answer in map(json.loads, found) if isinstance(answer, dict)]
