"""cl_bench: a JAX functional benchmark suite for continual learning."""

__version__ = "0.1.0"
