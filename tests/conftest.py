"""Settings that JAX reads before its first array: two host devices, exact products.

JAX itself takes its compilation cache from JAX_COMPILATION_CACHE_DIR.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as cl_bench.main sets it

import jax

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_default_matmul_precision", "highest")
