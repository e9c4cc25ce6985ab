"""The messages of the Centrifuge client protocol, as JSON: bytes in, commands and bytes out.

The definitions are those of ``definitions/client.proto`` in the repository
``centrifugal/protocol``; how they are framed is told in Centrifugo's documentation, "Client
protocol".
"""
