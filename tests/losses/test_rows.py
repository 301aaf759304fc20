"""Networks that see only the rows of a batch that need them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxguide import losses
from jaxguide.losses import rows
from tests.losses.test_guided import NULL, PATH, evaluate, examples, network

FAST_COMPILE = True
SHARES = (0.0, 0.1, 0.15, 0.2, 0.25, 0.5, 0.9, 1.0)


def chosen_by_hand(count, share, stride, first):
    """In Python's integers."""
    step = rows.GOLDEN * stride
    lots = [(first + i * step) % rows.WHOLE for i in range(count)]
    return sum(lot < round(share * rows.WHOLE) for lot in lots)


@pytest.mark.parametrize("share", SHARES)
def test_neighbours_never_hold_more_than_was_counted_and_once_hold_it(share):
    rng = np.random.default_rng(0)
    length = round(share * rows.WHOLE)
    for count, stride in [(1, 1), (8, 1), (32, 1), (33, 3), (8, 4), (16, 5)]:
        step = rows.GOLDEN * stride
        # Every row at the beginning of the interval, and any place of it.
        firsts = [-i * step for i in range(count)]
        firsts += rng.integers(0, rows.WHOLE, 50).tolist()
        held = [chosen_by_hand(count, share, stride, first) for first in firsts]
        assert max(held) == rows.most(count, length, stride)
        assert max(held) >= np.ceil(share * count - 1e-9)


def test_the_published_shares_waste_little():
    at = [rows.most(count, round(0.2 * rows.WHOLE)) for count in (8, 16, 32, 64, 256)]
    assert at == [2, 4, 7, 14, 53]
    assert rows.share_of_rows(8, 0.15) == 2 / 8
    assert rows.share_of_rows(0, 0.15) == 0.15


def test_every_row_is_chosen_with_exactly_its_chance():
    @jax.jit
    @jax.vmap
    def masks(key):
        lots = rows.lots(losses.draws(key, 8))
        edges = [(0.0, 0.1), (0.1, 0.25), (0.75, 1.0), (0.0, 1.0), (0.5, 0.5)]
        return jnp.stack([lots.between(*edge).mask for edge in edges])

    found = masks(jax.random.split(jax.random.key(0), 20_000)).mean(0)
    expected = np.array([0.1, 0.15, 0.25, 1.0, 0.0])[:, None]
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=0.01)
    both = masks(jax.random.split(jax.random.key(1), 50))
    counts = np.asarray(both.sum(-1))
    assert set(counts[:, 1]) <= {0, 1, 2} and not np.any(both[:, 0] & both[:, 1])


def test_the_chosen_rows_are_those_of_the_whole_batch(key):
    seen = []

    def function(x, drawn):
        seen.append(len(x))
        return x * drawn.uniform()[:, None] + drawn.total

    @functools.partial(jax.jit, static_argnums=0)
    def run(edges):
        drawn = losses.draws(key, 40)
        x = drawn.normal((3,))
        chosen = rows.lots(drawn).between(*edges)
        return rows.on_rows(function, chosen, x, drawn), function(x, drawn), chosen.mask

    for edges, size in [((0.1, 0.3), 9), ((0.0, 1.0), 40), ((0.4, 0.4), 0)]:
        seen.clear()
        found, whole, mask = run(edges)
        np.testing.assert_array_equal(found[mask], whole[mask])
        assert np.all(np.isfinite(found))
        if size:
            assert seen[0] == size
        else:  # asked for its shape alone
            np.testing.assert_array_equal(found, 0 * whole)


def test_draws_whose_places_were_made_by_hand_give_no_silent_number(key):
    drawn = losses.draws(key, 40)
    chosen = rows.lots(drawn._replace(place=0 * drawn.place)).between(0.0, 1 - 2**-20)
    assert chosen.mask.all()
    chosen = chosen._replace(length=rows.WHOLE // 5)
    found = rows.on_rows(lambda x: x, chosen, jnp.ones(40))
    assert np.isnan(found).sum() == 40 - rows.most(40, rows.WHOLE // 5)


def drawn_one_by_one(params, teacher, batch, key, share=0.2, drop=0.1):
    """Scale-aware Model-Guidance with every row's kind a draw of its own."""
    x0, label = batch
    noising, choosing, scaling = losses.draws(key, len(label)).split(3)
    noisy = losses.corrupt(x0, noising, path=PATH, t_sampling=losses.uniform_t)
    kind = choosing.uniform()
    dropped, guided = kind < drop, (kind >= drop) & (kind < drop + share)
    drawn = scaling.uniform(1.0, 2.0)
    ones = jnp.ones_like(drawn)
    null = jnp.full_like(label, NULL)
    change = network(teacher, noisy.x, noisy.t, label, scale=ones)
    change -= network(teacher, noisy.x, noisy.t, null, scale=0 * ones)
    strength = jnp.where(guided & (noisy.t < 0.75), drawn - 1, 0.0)
    target = noisy.target("velocity") + strength[:, None, None, None] * change
    scale = jnp.where(guided, drawn, jnp.where(dropped, 0.0, 1.0))
    shown = jnp.where(dropped, null, label)
    found = network(params, noisy.x, noisy.t, shown, scale=scale)
    return losses.squared_error(found, target)


def test_the_expected_loss_and_gradient_are_those_of_rows_drawn_one_by_one():
    batch = examples(8)

    def sliced(params, key):
        options = dict(guided_share=0.2, t_hi=0.75)
        name = "scale_aware_model_guidance"
        return evaluate(name, params, 5.0, batch, key, **options).mean()

    def whole(params, key):
        return drawn_one_by_one(params, 5.0, batch, key).mean()

    @jax.jit
    def moments(key):
        keys = jax.random.split(key, 30_000)
        each = [
            jnp.stack(jax.vmap(jax.value_and_grad(f), (None, 0))(0.7, keys))
            for f in (sliced, whole)
        ]
        return [(e.mean(1), e.std(1) / len(keys) ** 0.5) for e in each]

    (mean, error), (expected, other) = moments(jax.random.key(0))
    # About 1 % of the values, and guidance moves the loss by 40 of these errors.
    assert np.all(np.abs(mean - expected) < 4 * np.hypot(error, other))
    assert np.all(error < 1.05 * other), "evenly spread rows vary no more"


def test_the_rows_of_a_device_stay_on_it(key):
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("rows",), axis_types=(AxisType.Auto,))
    place = NamedSharding(mesh, PartitionSpec("rows"))
    batch = examples(8 * len(devices))

    def run(batch):
        return evaluate(
            "scale_aware_model_guidance", 0.7, 5.0, batch, key, guided_share=0.2
        )

    with jax.set_mesh(mesh):
        program = jax.jit(run, in_shardings=place, out_shardings=place)
        text = str(program.lower(batch).compile().as_text())
        found = program(jax.device_put(batch, place))
    np.testing.assert_allclose(found, jax.jit(run)(batch), rtol=1e-5)
    words = ("all-gather", "all-to-all", "all-reduce", "collective-permute")
    assert len(devices) > 1 and not any(word in text for word in words)
