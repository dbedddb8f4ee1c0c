"""The memory: who is online where, and the log of every stream."""
