"""Publish through a channel layer what is read from standard input: lines of `group message`.

Several groups are served concurrently, so that the round trips to Redis do not bound the rate; the
messages of one group stay in order.
"""

import asyncio
import os
import sys
import traceback
import zlib

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'bench.servers.channels_settings')

import django

django.setup()

from channels.layers import get_channel_layer  # type: ignore[import-untyped]

CONCURRENT_GROUPS = 64
LINE_BYTES = 1024 * 1024


async def publish(queue: 'asyncio.Queue[tuple[str, str]]') -> None:
    """Publish what is queued, one message after the other."""
    layer = get_channel_layer()
    while True:
        group, text = await queue.get()
        await layer.group_send(group, {'type': 'facility.message', 'text': text})


def stop_on_error(publisher: 'asyncio.Task[None]') -> None:
    """End the process with the error that ended a publisher."""
    if not publisher.cancelled() and (error := publisher.exception()) is not None:
        traceback.print_exception(error)
        os._exit(1)


async def main() -> None:
    """Publish until standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    queues: list[asyncio.Queue[tuple[str, str]]] = [
        asyncio.Queue() for _ in range(CONCURRENT_GROUPS)
    ]
    publishers = [asyncio.create_task(publish(queue)) for queue in queues]
    for publisher in publishers:
        publisher.add_done_callback(stop_on_error)
    while line := await reader.readline():
        group, _, text = line.decode().rstrip('\n').partition(' ')
        queues[zlib.crc32(group.encode()) % CONCURRENT_GROUPS].put_nowait((group, text))


if __name__ == '__main__':
    asyncio.run(main())
