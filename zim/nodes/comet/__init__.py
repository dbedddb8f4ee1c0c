"""The edge: holds the connections of clients, and hands them what is pushed to their streams."""
