"""The four kinds of nodes. A runner decides and is pure; a node wires it to `zim.net`."""
