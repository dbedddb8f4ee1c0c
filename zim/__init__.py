"""zim: a push fabric. A backend calls HTTP, the message reaches phones and browsers over connections that stay open."""

__version__ = "0.1.0"
