"""The automatic weight on curves with a known minimum, and on a 2-D model."""

from typing import NamedTuple

import numpy as np
import pytest

from jaxguide import losses
from jaxguide.evaluate.distances import energy_distance

FAST_COMPILE = True

RNG = np.random.default_rng(0)


def settle(distance, *, weight=0.0, evaluations=60, lag=0.3, **options):
    """Weights after every evaluation of a network that follows its weight slowly.

    `distance` is a function of the scale that the network is sampled at; between two
    evaluations the learnt scale moves by the share `1 - lag` to 1 / (1 - w).
    """
    learnt, weights = 1 / (1 - weight), []
    for _ in range(evaluations):
        trials = [learnt * f for f in losses.trial_scales(options.get("spread", 1.25))]
        weight = losses.next_weight(weight, [distance(s) for s in trials], **options)
        learnt = lag * learnt + (1 - lag) / (1 - weight)
        weights.append(weight)
    return np.array(weights)


@pytest.mark.parametrize("best", [1.2, 1.8, 3.0])
@pytest.mark.parametrize("start", [0.0, 0.7])
def test_it_settles_at_the_scale_of_least_distance(best, start):
    weights = settle(lambda s: np.log(s / best) ** 2 + 3.0, weight=start)
    np.testing.assert_allclose(1 / (1 - weights[-1]), best, rtol=1e-3)
    assert 0 <= weights.min() and weights.max() <= 0.75


def test_a_lopsided_curve_and_a_slow_network_do_not_make_it_swing():
    weights = settle(lambda s: (s - 2.0) ** 2 * (1 + (s > 2)), lag=0.7)
    scales = 1 / (1 - weights[-20:])
    # A parabola through a kink is least on the flatter side of it.
    np.testing.assert_allclose(scales, 2.0, rtol=0.1)
    assert np.ptp(scales) < 0.01


def test_where_guidance_only_harms_the_weight_stays_at_zero():
    np.testing.assert_array_equal(settle(lambda s: s**2), 0.0)
    np.testing.assert_array_equal(settle(lambda s: np.sqrt(s)), 0.0)


def test_where_guidance_only_helps_the_weight_rises_to_its_limit():
    weights = settle(lambda s: 1 / s, max_weight=0.6)
    np.testing.assert_allclose(weights[-1], 0.6, atol=1e-6)
    assert np.all(np.diff(weights) >= 0)


def test_steps_are_bounded_whatever_the_distances():
    for distances in RNG.normal(size=(200, 3)) * 10.0 ** RNG.uniform(-9, 9, (200, 1)):
        weight = losses.next_weight(0.5, distances, rate=1.0)
        assert 1 / 1.25 - 1e-9 <= 0.5 / (1 - weight) <= 1.25 + 1e-9


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_distance_that_is_not_finite_changes_nothing(broken):
    assert losses.next_weight(0.3, [1.0, broken, 2.0]) == 0.3


def test_equal_distances_change_nothing():
    assert losses.next_weight(0.3, [1.0, 1.0, 1.0]) == 0.3


class Rings(NamedTuple):
    """Points of two classes in the plane, and a network that has not learnt them well.

    The network is exact for a broader version of the data whose classes are mixed up:
    a share of each class lies where the other one is. Guidance undoes both, and too
    much of it concentrates what is left.
    """

    centres: np.ndarray  # [classes, components, 2]
    std: float = 0.12
    blur: float = 0.25
    confused: float = 0.15

    def reals(self, rng, count):
        """[2 * count, 2]: `count` points of each class."""
        pick = rng.integers(0, self.centres.shape[1], (2, count))
        centre = np.stack([self.centres[c][pick[c]] for c in range(2)])
        return centre + self.std * rng.normal(size=centre.shape)

    def velocity(self, x, t, share):
        """Exact velocity of the network's own data; `share` of the first class."""
        means = (1 - t) * self.centres.reshape(-1, 2)
        variance = (1 - t) ** 2 * (self.std**2 + self.blur**2) + t**2
        logits = -np.square(x[:, None] - means[None]).sum(-1) / (2 * variance)
        prior = np.repeat([share, 1 - share], self.centres.shape[1])
        posterior = np.exp(logits - logits.max(1, keepdims=True)) * prior
        posterior /= posterior.sum(1, keepdims=True)
        gain = (1 - t) * (self.std**2 + self.blur**2) / variance
        mean = posterior @ self.centres.reshape(-1, 2)
        denoised = mean + gain * (x - posterior @ means)
        return (x - denoised) / t

    def sample(self, noise, scale, steps=25):
        """Samples [2, count, 2] of both classes at a scale of guidance."""
        grid = np.linspace(1.0, 0.0, steps + 1)
        out = []
        for x, share in zip(noise, (1 - self.confused, self.confused), strict=True):
            for t, then in zip(grid[:-1], grid[1:], strict=True):
                none = self.velocity(x, t, 0.5)
                own = self.velocity(x, t, share)
                x = x + (then - t) * (none + scale * (own - none))
            out.append(x)
        return np.stack(out)


def world():
    angle = np.arange(8) * np.pi / 4
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    data = Rings(np.stack([ring[::2], ring[1::2]]))
    rng = np.random.default_rng(1)
    noise, reals = rng.normal(size=(2, 400, 2)), data.reals(rng, 400)

    def distance(scale):
        """Mean over the classes of the distance to the real points of the class."""
        made = data.sample(noise, scale)
        pairs = zip(made, reals, strict=True)
        return float(np.mean([energy_distance(*pair) for pair in pairs]))

    return distance


def search(distance):
    """The weight that a manual search over a grid would choose."""
    grid = np.arange(0, 0.76, 0.05)
    found = [distance(1 / (1 - weight)) for weight in grid]
    return float(grid[int(np.argmin(found))]), found


@pytest.mark.exhaustive  # a search; the rule is checked above
def test_it_finds_the_weight_of_a_manual_search_in_two_dimensions():
    distance = world()
    best, found = search(distance)
    assert 0 < best < 0.75, "the search has an answer inside"
    weights = settle(distance, evaluations=30)
    np.testing.assert_allclose(weights[-5:], best, atol=0.06)
    reached = distance(1 / (1 - weights[-1]))
    # As good as the best of the grid, up to a small part of what guidance gains.
    assert reached < min(found) + 0.05 * (found[0] - min(found))


def test_the_energy_distance_is_the_double_sum():
    x, y = RNG.normal(size=(7, 2, 3)), RNG.normal(1, 2, size=(5, 2, 3))
    a, b = x.reshape(7, -1), y.reshape(5, -1)

    def mean(pairs):
        return np.mean([np.linalg.norm(p - q) for p, q in pairs])

    slow = 2 * mean([(p, q) for p in a for q in b])
    for one in (a, b):
        slow -= mean([(p, q) for i, p in enumerate(one) for q in np.delete(one, i, 0)])
    np.testing.assert_allclose(energy_distance(x, y), slow, rtol=1e-9)


def test_the_energy_distance_is_unbiased_and_grows_with_a_shift():
    sets = RNG.normal(size=(300, 2, 20, 2))
    same = [energy_distance(x, y) for x, y in sets]
    error = np.std(same) / np.sqrt(300)
    assert abs(np.mean(same)) < 4 * error
    shifted = [np.mean([energy_distance(x, y + d) for x, y in sets])
               for d in (0.0, 0.5, 1.0)]  # fmt: skip
    assert np.all(np.diff(shifted) > 0.05)


class State(NamedTuple):
    ema_params: float
    tuned: dict


def test_tune_samples_the_average_at_three_scales_and_answers_with_the_weight():
    seen = []

    def sample(params, scale):
        seen.append((params, scale))
        return scale

    tune = losses.auto_weight(sample, lambda scale: -scale, rate=0.5)
    new = tune(100, State(7.0, {"weight": np.float32(0.5)}))
    assert seen == [(7.0, 0.8), (7.0, 1.0), (7.0, 1.25)]
    assert new == {"weight": pytest.approx(0.5 + 0.5 * (0.6 - 0.5))}


def test_wrong_numbers_are_named():
    with pytest.raises(ValueError, match="need a finite spread > 1, got spread=1"):
        losses.trial_scales(1)
    for wrong in (dict(rate=0), dict(max_weight=1.0), dict(weight=1.2)):
        name, value = next(iter(wrong.items()))
        with pytest.raises(ValueError, match=f"{name}={value}"):
            losses.next_weight(**({"weight": 0.2, "distances": [1, 1, 1]} | wrong))
    with pytest.raises(ValueError, match="got samples=1 and reals=3"):
        energy_distance(np.zeros((1, 2)), np.zeros((3, 2)))
