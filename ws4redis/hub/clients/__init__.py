"""Connections of the client protocol: many subscriptions on one websocket."""
