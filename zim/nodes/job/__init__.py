"""The fan-out: turns one push into one message to each comet."""
