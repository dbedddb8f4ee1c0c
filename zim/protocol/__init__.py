"""Bytes to values and back: the wire of clients, and the messages between nodes. Pure."""
