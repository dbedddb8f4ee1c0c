"""How packets lie in a stream of bytes."""
