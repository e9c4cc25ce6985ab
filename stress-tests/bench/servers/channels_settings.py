"""Settings of the Channels contenders."""

import os

from bench.servers.django_settings import *  # noqa: F403

_LAYERS = {
    'core': 'channels_redis.core.RedisChannelLayer',
    'pubsub': 'channels_redis.pubsub.RedisPubSubChannelLayer',
}
_LAYER = os.environ['BENCH_CHANNEL_LAYER']

CHANNEL_LAYERS = {
    'default': {
        'BACKEND': _LAYERS[_LAYER],
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
            # With the default, 100, the layer silently drops half of a burst of 200 messages.
            **({'capacity': 100_000} if _LAYER == 'core' else {}),
        },
    }
}
