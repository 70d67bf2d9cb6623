"""Decompositions one by one on a CPU: the same numbers, and never a batch of LAPACK's.

A batch of two programs side by side can wait for itself for ever (`cl_bench.linalg`);
whether it does is a race, so the tests look at the traced programs.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cl_bench
from cl_bench import flops, linalg
from cl_bench.methods import _quadratic, _subspace, inflora, ogd
from cl_bench.metrics import _ranks, _similarity

SHAPE = (3, 2, 7, 4)  # lanes of pairs of matrices
LAPACK = {"svd", "lu", "triangular_solve", "eigh", "qr", "cholesky", "householder"}
VECTORS = jnp.ones(4)


@pytest.fixture
def matrices() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def lapack_operands(function, *arguments) -> set[tuple[str, int]]:
    """Every LAPACK primitive of the traced function, with its operands' axes."""
    return set(_operands(jax.make_jaxpr(function)(*arguments).jaxpr))


def _operands(jaxpr: Any) -> Iterator[tuple[str, int]]:
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in LAPACK:
            yield name, max(len(atom.aval.shape) for atom in eqn.invars)
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                yield from _operands(getattr(value, "jaxpr", value))


def _is_jaxpr(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def test_batches_have_numpys_numbers(matrices):
    values = jax.vmap(jax.vmap(linalg.singular_values))(matrices)
    u, s, rows = jax.vmap(jax.vmap(linalg.svd))(matrices)
    expected = np.linalg.svd(matrices, compute_uv=False)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(s, expected, rtol=1e-5)
    chex.assert_shape((u, rows), [(3, 2, 7, 4), (3, 2, 4, 4)])
    np.testing.assert_allclose((u * s[..., None, :]) @ rows, matrices, atol=1e-5)
    system = np.swapaxes(matrices, -1, -2) @ matrices
    back = jax.vmap(jax.vmap(linalg.inverse))(system) @ system
    np.testing.assert_allclose(back, np.broadcast_to(np.eye(4), back.shape), atol=1e-3)
    for right in (matrices[0, 0, :4], matrices[0, 0, 0]):
        solved = jax.vmap(jax.vmap(linalg.solve, (0, None)), (0, None))(system, right)
        of_one = np.stack([np.linalg.solve(a, right) for a in system.reshape(-1, 4, 4)])
        np.testing.assert_allclose(
            solved.reshape(of_one.shape), of_one, rtol=2e-3, atol=1e-4
        )


def test_the_reading_of_programs_sees_a_batch(matrices):
    def of(function):
        return lapack_operands(jax.vmap(jax.vmap(function)), matrices)

    assert of(lambda m: jnp.linalg.svd(m, full_matrices=False)) == {("svd", 4)}
    solved = of(lambda m: jnp.linalg.solve(m[:4], VECTORS))
    assert ("lu", 4) in solved


USERS = {
    "singular_values": linalg.singular_values,
    "svd": linalg.svd,
    "solve": lambda m: linalg.solve(m[:4], VECTORS),
    "inverse": lambda m: linalg.inverse(m[:4]),
    "ranks": _ranks.singular_values,
    "input_basis": lambda m: _similarity.input_basis(m, 0.9),
    "probe_outputs": lambda m: _similarity.probe_outputs(m, m, jnp.ones(7)),
    "gem": lambda m: _quadratic.solve(m[:4] @ m[:4].T, VECTORS),
    "gpm": lambda m: _subspace.grow(jnp.zeros((4, 4)), m, 0.9),
    "inflora": lambda m: inflora.new_directions(jnp.zeros((4, 4)), m, 2),
    "ogd": lambda m: ogd.new_directions(jnp.zeros((2, 4)), m),
}


@pytest.mark.parametrize("name", USERS)
def test_no_batch_reaches_lapack(name, matrices):
    found = lapack_operands(jax.vmap(jax.vmap(USERS[name])), matrices)
    assert found
    assert all(axes <= 2 for _, axes in found)


def test_nothing_else_calls_lapack():
    folder = Path(cl_bench.__file__).parent
    for path in folder.rglob("*.py"):
        if path.name == "linalg.py" or "report" in path.parts:
            continue  # the report has numpy's, after the runs
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and _is_linalg(node.value):
                assert node.attr == "norm", f"{path}: use cl_bench.linalg.{node.attr}"


def _is_linalg(node: ast.expr) -> bool:
    """`jnp.linalg` or `jax.lax.linalg`, and not the module of this package."""
    return isinstance(node, ast.Attribute) and node.attr == "linalg"


def test_flops_are_those_of_the_decomposition(matrices):
    def counted(function):
        return flops.count(function, jax.ShapeDtypeStruct((7, 4), jnp.float32))

    plain = counted(lambda m: jnp.linalg.svd(m, full_matrices=False, compute_uv=False))
    assert counted(linalg.singular_values) == plain
    assert plain.flops > 7 * 4 * 4
