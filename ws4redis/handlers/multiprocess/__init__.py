"""Handlers in other processes, reached by Redis Streams.

A websocket server and the processes that run handlers, called workers, know each other by Redis
alone:

- Each worker has a stream, which it reads through a consumer group of its own. The servers add
  events to it: a websocket opens, a message, the end.
- Each server has a stream too, its own channel for answers. Workers add to it: the websocket is
  accepted or refused, a message to send, close, and which events have been seen to their end.
- Signs of life of all workers are in one hash.

A websocket belongs to one worker for its lifetime, since its handler object lives there. Its events
are numbered, and so are its answers. A server keeps each event until the worker says that its
handler has seen it, and sends it again when the connection to Redis was lost: so no event is lost,
and the worker drops what it has had before.
"""
