"""Settings of the Channels contender."""

import os

from bench.servers.django_settings import *  # noqa: F403

CHANNEL_LAYERS = {
    'default': {
        'BACKEND': 'channels_redis.pubsub.RedisPubSubChannelLayer',
        'CONFIG': {
            'hosts': [
                {
                    'address': f'redis://127.0.0.1:{os.environ["BENCH_REDIS_PORT"]}/0',
                    # The layer takes a connection for each handshake or message that is under way;
                    # beyond redis-py's default, 100, it closes the websocket with an error.
                    'max_connections': 4_000,
                    # The layer waits for messages for 5 seconds at a time, redis-py gives up a
                    # connection after 5 seconds, too: idle websockets would be closed.
                    'socket_timeout': None,
                }
            ],
        },
    }
}
