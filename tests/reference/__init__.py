"""Independent numpy oracles, written from the papers: the JAX code is tested on them."""
