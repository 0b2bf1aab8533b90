"""Sockets, interfaces, names and relays: the thin asyncio shells around the state machines."""
