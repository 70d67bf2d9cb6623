"""Streams: one file is one component, found by its name (`cl_bench.registry`)."""
