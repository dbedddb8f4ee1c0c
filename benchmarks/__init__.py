"""Benchmarks against real fabrics: `make bench`."""
