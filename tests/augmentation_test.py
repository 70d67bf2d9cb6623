"""Augmentation: flips, crops and rotations of images, and when a stream draws them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.streams import _augment
from tests.class_streams_setting import grow, held_out, walk
from tests.stream_setting import task_of

IMAGE = jnp.arange(1.0, 17.0).reshape(4, 4, 1)


def _move(flip=False, shift=(0, 0), degrees=0.0, image=IMAGE):
    angle = jnp.deg2rad(jnp.float32(degrees))
    return _augment.move(image, jnp.bool_(flip), jnp.array(shift), angle)[..., 0]


def test_no_move_is_the_identity():
    chex.assert_trees_all_equal(_move(), IMAGE[..., 0])


def test_a_flip_mirrors_the_columns():
    chex.assert_trees_all_equal(_move(flip=True), IMAGE[:, ::-1, 0])


@pytest.mark.parametrize("shift", [(1, 0), (-2, 1), (3, -3)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_shift_is_a_crop_of_the_reflected_image(shift, flip):
    image = np.asarray(IMAGE[..., 0])
    image = image[:, ::-1] if flip else image
    padded = np.pad(image, 3, mode="reflect")
    top, left = 3 + shift[0], 3 + shift[1]
    expected = padded[top : top + 4, left : left + 4]
    chex.assert_trees_all_equal(np.asarray(_move(flip, shift)), expected)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_counter_clockwise(quarters):
    expected = np.rot90(np.asarray(IMAGE[..., 0]), quarters)
    chex.assert_trees_all_equal(np.asarray(_move(degrees=90.0 * quarters)), expected)


def test_a_rotation_reads_the_nearest_pixel():
    """By hand, 45 degrees on 3 x 3: the top left corner reads (0, -1.41) from the
    centre, the pixel above it; the middle of the top reads (0.71, -0.71), a corner.
    """
    image = jnp.arange(1.0, 10.0).reshape(3, 3, 1)
    expected = jnp.array([[2.0, 3, 6], [1, 5, 9], [4, 7, 8]])
    chex.assert_trees_all_equal(_move(degrees=45.0, image=image), expected)


def test_a_rotation_reads_zero_outside():
    """45 degrees on 5 x 5: only the corners read 2.83 pixels from the centre."""
    turned = np.asarray(_move(degrees=45.0, image=jnp.ones((5, 5, 1))))
    expected = np.ones((5, 5), np.float32)
    expected[::4, ::4] = 0
    chex.assert_trees_all_equal(turned, expected)


def test_the_crop_comes_before_the_rotation():
    shifted = _move(shift=(1, 0))
    expected = np.rot90(np.asarray(shifted), 1)
    chex.assert_trees_all_equal(np.asarray(_move(shift=(1, 0), degrees=90.0)), expected)


def test_each_example_and_step_has_its_own_draw():
    x = jnp.broadcast_to(IMAGE, (64, 4, 4, 1))
    moved = np.asarray(_augment.augment(jax.random.key(0), x, padding=2))
    assert len({image.tobytes() for image in moved}) > 20
    chex.assert_trees_all_equal(
        np.asarray(
            _augment.augment(jax.random.key(0), x, padding=0, degrees=0.0)
        ).max(),
        np.float32(16),
    )
    stream = grow()
    data, state = task_of(stream)
    same = state._replace(table=jnp.zeros_like(state.table))
    one, two = (stream.batch(data, same, jnp.int32(i)).x for i in (0, 1))
    assert not np.array_equal(one, two)
    chex.assert_trees_all_equal(one, stream.batch(data, same, jnp.int32(0)).x)


def test_half_of_the_images_are_flipped():
    x = jnp.broadcast_to(IMAGE, (1000, 4, 4, 1))
    moved = _augment.augment(jax.random.key(2), x, padding=0, degrees=0.0)[..., 0]
    flipped = np.asarray(jnp.all(moved == IMAGE[:, ::-1, 0], axis=(1, 2)))
    same = np.asarray(jnp.all(moved == IMAGE[..., 0], axis=(1, 2)))
    assert (flipped | same).all() and 440 < flipped.sum() < 560  # 3.8 deviations


def test_only_the_test_set_is_augmented_and_only_on_request():
    plain, quirk = grow(held_out_batch=6), grow(held_out_batch=6, augment_test=True)
    bare = grow(held_out_batch=6, augment=False)
    chex.assert_trees_all_equal(held_out(plain, "test"), held_out(bare, "test"))
    assert not np.array_equal(held_out(quirk, "test").x, held_out(bare, "test").x)
    chex.assert_trees_all_equal(held_out(quirk, "fit"), held_out(bare, "fit"))
    assert not np.array_equal(walk(plain).x, walk(bare).x)
