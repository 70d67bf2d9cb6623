"""What was saved comes back, or the damage is found before it is used."""

import json
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import pytest

from cl_bench import checkpoints
from cl_bench.atomic import StoreError, replacing

_ROOT = Path(__file__).resolve().parent.parent


class _State(NamedTuple):
    net: dict
    opt: tuple
    extra: dict
    edges: object = None


def _tree():
    return _State(
        net={"h1": {"kernel": jnp.arange(6.0).reshape(2, 3)}, "stats": {}},
        opt=(jnp.int32(7), None, jnp.array([True, False]), jnp.zeros((0, 3))),
        extra={"key": jax.random.split(jax.random.key(1), 2), "b": jnp.bfloat16(0.5)},
    )


def _raw(tree):
    """Keys as their data: chex compares numbers."""
    return tree._replace(
        extra=tree.extra | {"key": jax.random.key_data(tree.extra["key"])}
    )


def _abstract(tree):
    return jax.eval_shape(lambda: tree)


@pytest.mark.parametrize("describe", [_abstract, lambda tree: tree])
def test_the_same_tree_comes_back(tmp_path, describe):
    tree = _tree()
    checkpoints.save(tmp_path, 4, 2, tree)
    assert checkpoints.verify(tmp_path, 4) == (4, 2)
    back = checkpoints.restore(tmp_path, 4, describe(tree))
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    chex.assert_trees_all_equal_shapes_and_dtypes(_raw(back), _raw(tree))
    chex.assert_trees_all_equal(_raw(back), _raw(tree))
    assert jax.dtypes.issubdtype(back.extra["key"].dtype, jax.dtypes.prng_key)
    assert not any(leaf.committed for leaf in jax.tree.leaves(back))


def test_sharded_lanes_come_back_on_their_devices(tmp_path):
    code = """
    import sys
    import jax, jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from cl_bench import checkpoints
    mesh = Mesh(jax.devices(), ("lane",))
    lanes = NamedSharding(mesh, PartitionSpec("lane"))
    keys = jax.random.split(jax.random.key(0), 4)
    tree = (jax.device_put(jnp.arange(8.0).reshape(4, 2), lanes),
            jax.device_put(keys, lanes), jnp.int32(5))
    checkpoints.save(sys.argv[1], 1, 1, tree)
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype,
        sharding=a.sharding if a.committed else None), tree)
    back = checkpoints.restore(sys.argv[1], 1, like)
    assert back[0].sharding == back[1].sharding == lanes
    assert len(back[0].addressable_shards) == 2
    def use(w, key, n):
        return w * n + jax.vmap(jax.random.uniform)(key)[:, None]
    assert (jax.jit(use)(*back) == jax.jit(use)(*tree)).all()
    print("same")
    """
    flags = "--xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        cwd=_ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "same\n", done.stderr


def test_orbax_does_not_narrate_every_save(tmp_path, caplog):
    absl = logging.getLogger("absl")
    with caplog.at_level(logging.DEBUG, logger="absl"):
        absl.addHandler(caplog.handler)
        checkpoints.save(tmp_path, 1, 1, {"w": jnp.ones(2)})
        absl.warning("ours")
        absl.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"ours"}


def test_only_the_newest_two_are_kept(tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, step, step, {"w": jnp.ones(2)})
    assert checkpoints.saved(tmp_path) == [2, 3]
    folders = [p.name for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()]
    assert sorted(folders) == ["step-00000002", "step-00000003"]


def test_a_step_can_be_saved_again(tmp_path):
    checkpoints.save(tmp_path, 1, 1, {"w": jnp.ones(2)})
    checkpoints.save(tmp_path, 1, 1, {"w": jnp.zeros(2)})
    back = checkpoints.restore(tmp_path, 1, {"w": jnp.ones(2)})
    chex.assert_trees_all_equal(back, {"w": jnp.zeros(2)})


def test_damage_to_any_file_is_found(tmp_path):
    checkpoints.save(tmp_path, 1, 1, _tree())
    folder = tmp_path / "checkpoints" / "step-00000001"
    files = [p for p in folder.rglob("*") if p.is_file()]
    files.append(folder.with_suffix(".json"))
    for path in files:
        good = path.read_bytes()
        flipped = bytes([good[0] ^ 1]) + good[1:] if good else b"x"
        bad = [good[:0], good[: len(good) // 2], good[:-3], flipped]
        for content in bad:
            if content != good:
                path.write_bytes(content)
                with pytest.raises(StoreError, match="step-00000001"):
                    checkpoints.verify(tmp_path, 1)
        path.unlink()
        with pytest.raises(StoreError, match="step-00000001"):
            checkpoints.verify(tmp_path, 1)
        path.write_bytes(good)
    assert checkpoints.verify(tmp_path, 1) == (1, 1)


def test_edited_manifest_is_found(tmp_path):
    checkpoints.save(tmp_path, 1, 1, {"w": jnp.ones(2)})
    path = tmp_path / "checkpoints" / "step-00000001.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_parts": 9}))
    with pytest.raises(StoreError, match="does not match its checksum"):
        checkpoints.verify(tmp_path, 1)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"w": jnp.ones(3)}, r"float32\[2\] at \['w'\].*float32\[3\] at \['w'\]"),
        ({"w": jnp.ones(2, jnp.int32)}, r"int32\[2\] at \['w'\]"),
        ({"v": jnp.ones(2)}, r"at \['v'\]"),
        ({}, "no leaf"),
        ({"w": jnp.ones(2), "x": jnp.ones(1)}, r"no leaf.*float32\[1\] at \['x'\]"),
    ],
)
def test_another_program_is_refused(tmp_path, wanted, text):
    checkpoints.save(tmp_path, 1, 1, {"w": jnp.ones(2)})
    with pytest.raises(checkpoints.CheckpointMismatchError, match=text):
        checkpoints.restore(tmp_path, 1, wanted)


def test_failed_save_leaves_the_earlier_step(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 1, 1, {"w": jnp.ones(2)})

    def full(target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "_fingerprint", full)
    with pytest.raises(StoreError, match="step-00000002.*No space left"):
        checkpoints.save(tmp_path, 2, 2, {"w": jnp.ones(2)})
    monkeypatch.undo()
    names = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert names == {"step-00000001", "step-00000001.json"}
    assert checkpoints.verify(tmp_path, 1) == (1, 1)


def test_what_a_killed_save_leaves_is_void_and_removed(tmp_path):
    checkpoints.save(tmp_path, 1, 1, {"w": jnp.ones(2)})
    folder = tmp_path / "checkpoints"
    (folder / "step-00000002.orbax-checkpoint-tmp").mkdir()
    (folder / "step-00000003").mkdir()  # complete, but its manifest was not written
    (folder / ".step-00000003.json.1.tmp").write_text("{")
    assert checkpoints.saved(tmp_path) == [1]
    checkpoints.remove_unfinished(tmp_path)
    names = {p.name for p in folder.iterdir()}
    assert names == {"step-00000001", "step-00000001.json"}


def test_a_checkpoint_that_goes_before_its_manifest_would_be_void(tmp_path):
    """The manifest is atomic: an error while it is written leaves none."""
    path = tmp_path / "step-00000001.json"
    with pytest.raises(StoreError), replacing(path) as file:
        file.write(b"{")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []
