"""Settings that JAX reads before its first array: two host devices, exact products.

JAX itself takes its compilation cache from JAX_COMPILATION_CACHE_DIR.
"""

import jax

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_default_matmul_precision", "highest")
