"""Sockets under gevent: links between nodes, accepting clients, pipes to them."""
