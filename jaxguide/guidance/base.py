"""The algebra: branches, what they cost, and the two functions of a transform.

    guided = raw + sum_i weight_i(t) * (a_i - b_i)

`raw` is the plain conditional prediction; `a_i` and `b_i` are branches: predictions of
a network under one change of its inputs. A transform declares its branches and says
how it combines them; it never calls a network. `evaluate.py` calls, `plan.py` counts.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxguide import paths
from jaxguide.paths import Array, Node, Path

# Space of a transform that gives the same result in every space.
ANY = "any"
# Space of the raw network output, whatever the network predicts.
NATIVE = "native"
SPACES = (ANY, NATIVE, *paths.KINDS)


class Tap(Protocol):
    """A change inside the network, given to it as keyword arguments. Hashable."""

    @property
    def random(self) -> bool:
        """Whether the arguments are drawn from a key."""
        ...

    def arguments(self, network: "Network", key: Array | None) -> dict[str, Array]:
        """Keyword arguments for `network.predict`."""
        ...

    def share(self, network: "Network") -> float:
        """FLOPs of the changed forward pass, relative to the full one."""
        ...


@dataclasses.dataclass(frozen=True)
class Branch:
    """A static description of one network call; equal branches are evaluated once.

    `cond` and `network` name an entry of the sampler's conditions and networks, `time`
    maps noise time to the time that the network is told, `tap` changes the inside of
    the network, and `draw` tells apart several random draws of one transform. `rewrite`
    makes the input from first-round predictions: `(step, outputs) -> x`; such a branch
    is evaluated in a second round. A `differentiable` branch is counted but not called:
    the transform gets it as a function of x (`Outputs.function`) to take gradients of.
    `owner` is filled in by the evaluator.
    """

    cond: str = "cond"
    network: str = "main"
    time: Callable[[Array], Array] | None = None
    tap: Tap | None = None
    draw: int = 0
    rewrite: Callable[["Step", "Outputs"], Array] | None = None
    differentiable: bool = False
    owner: int | None = None

    def __post_init__(self):
        if self.differentiable and self.rewrite is not None:
            raise ValueError(
                "Branch: need differentiable or rewrite, got both. A function of x has "
                "no input to rewrite."
            )

    def owned_by(self, owner: int) -> "Branch":
        """This branch; one that draws, or reads branches that do, has an owner."""
        draws = self.tap is not None and self.tap.random
        if not draws and self.rewrite is None:
            return self
        return dataclasses.replace(self, owner=owner)


RAW = Branch()


@dataclasses.dataclass(frozen=True)
class Network:
    """A predictor and what must be known about it. A pytree; `predict` holds weights.

    Args:
        predict: `(x [B, *D], t [B], cond, **taps) -> prediction [B, *D]`, or a pair
            (prediction, extra) whose second part is handed to the sampler. Wrap weights
            as `jax.tree_util.Partial(function, params)` so that they are traced.
        kind: what it predicts, one of `paths.KINDS`.
        path: the noise path it was trained on.
        depth: number of blocks that can be dropped through `keep_blocks`; 0 if none.
        flops: FLOPs of one forward pass per sample; None if unknown.
        block_flops: FLOPs of one block per sample.
        batch_time: whether a scalar time is widened to [B] before the call.

    Raises:
        ValueError: if `kind` is unknown.
    """

    predict: Callable[..., Any]
    kind: str = "velocity"
    path: Path = paths.Linear()
    depth: int = 0
    flops: float | None = None
    block_flops: float = 0.0
    batch_time: bool = True

    def __post_init__(self):
        paths.check_kind("Network", self.kind)
        leaves = jax.tree.leaves(self.predict)
        if len(leaves) == 1 and leaves[0] is self.predict and callable(self.predict):
            object.__setattr__(self, "predict", jax.tree_util.Partial(self.predict))


jax.tree_util.register_dataclass(
    Network,
    data_fields=["predict"],
    meta_fields=["kind", "path", "depth", "flops", "block_flops", "batch_time"],
)


class Step(NamedTuple):
    """What a transform may read during one sampling step."""

    x: Array  # [B, *D] noisy state
    node: Node  # noise time and the path's coefficients there, each [] or [B]
    conds: Mapping[str, Any]  # named conditions; leaves [B, ...]
    restart: Array  # [] bool: True where the previous step is no valid memory


class Guided(NamedTuple):
    """The running result of a chain, in the kind of the main network.

    `noise` is None while it follows from `prediction`; a transform that couples to the
    sampler (CFG++) sets it, and the sampler then renoises with it.
    """

    prediction: Array  # [B, *D]
    noise: Array | None = None  # [B, *D]


class Outputs:
    """Predictions of the declared branches at one step, readable in any space.

    Lives inside one trace; it is not a pytree and never leaves a sampling step.
    """

    def __init__(self, network: Network, step: Step, owner: int = 0):
        self.network, self.step, self.owner = network, step, owner
        self.extra: Any = None
        self._found: dict[Branch, tuple[Array, Array, Node]] = {}
        self._functions: dict[Branch, Callable[[Array], Array]] = {}

    def view(self, owner: int) -> "Outputs":
        """The same predictions as the transform at position `owner` sees them."""
        twin = Outputs(self.network, self.step, owner)
        twin._found, twin._functions = self._found, self._functions
        return twin

    def store(self, branch: Branch, prediction: Array, x: Array, node: Node) -> None:
        """Files the prediction of `branch` made at `(x, node)`."""
        self._found[branch] = (prediction, x, node)

    def store_function(self, branch: Branch, function: Callable) -> None:
        """Files a differentiable branch as a function x [B, *D] -> prediction."""
        self._functions[branch] = function

    def function(self, branch: Branch) -> Callable[[Array], Array]:
        """A declared differentiable branch: x [B, *D] -> native prediction [B, *D]."""
        return self._functions[branch.owned_by(self.owner)]

    def __getitem__(self, branch: Branch) -> Array:
        return self.read(branch, NATIVE)

    def read(self, branch: Branch, space: str = ANY) -> Array:
        """The prediction of a declared branch as `space`, converted at its own time."""
        found = self._found.get(branch.owned_by(self.owner))
        if found is None:
            raise ValueError(
                f"Outputs: need a branch that the transform declares, got {branch!r}. "
                "Return it from `branches`."
            )
        prediction, x, node = found
        if space in (ANY, NATIVE):
            return prediction
        return paths.convert(prediction, x, node, self.network.kind, space)

    def to_native(self, difference: Array, space: str) -> Array:
        """A difference of predictions in `space`, in the kind of the main network.

        Where that kind holds no trace of `space` (velocity from score at alpha = 0)
        the difference contributes nothing.
        """
        if space in (ANY, NATIVE, self.network.kind):
            return difference
        factor = paths.difference_factor(self.step.node, space, self.network.kind)
        factor = jnp.where(jnp.isfinite(factor), factor, jnp.zeros_like(factor))
        return paths.expand(factor, difference) * difference


class Transform(Protocol):
    """One guidance method: two pure functions, its branches, and when it is live.

    Implementations are frozen dataclasses registered as pytrees: weights are leaves
    (`Schedule`), all else is static and hashable. `apply` sees them with every schedule
    replaced by its number at this step.
    """

    def init(self, x: Array) -> Any:
        """State carried from step to step, a NamedTuple or (); `x` is [B, *D]."""
        ...

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """What must be evaluated while live, besides `RAW`."""
        ...

    def live(self, t: float) -> bool:
        """False if the result at host time `t` is known to be neutral."""
        ...

    def apply(
        self, guided: Guided, state: Any, outputs: Outputs, step: Step, *, live: bool
    ) -> tuple[Guided, Any]:
        """The next running result and state; updates the state also when not live."""
        ...


@jax.custom_jvp
def add_scaled(base: Array, weight: Array, difference: Array) -> Array:
    """`base + weight * difference`, bitwise `base` where `weight` is 0; dtype kept.

    `weight` [] or [B] is broadcast; its gradient at 0 is `difference`, as it should be.
    """
    weight = paths.expand(weight, base)
    moved = base + weight * difference.astype(base.dtype)
    return jnp.where(weight == 0, base, moved)


@add_scaled.defjvp
def _add_scaled_jvp(primals, tangents):
    base, weight, difference = primals
    dbase, dweight, ddifference = tangents
    change = paths.expand(dweight, base) * difference.astype(base.dtype)
    change += paths.expand(weight, base) * ddifference.astype(base.dtype)
    return add_scaled(base, weight, difference), dbase + change


def find_network(networks: Mapping[str, Network], branch: Branch) -> Network:
    """The network of a branch; raises ValueError if it is not there."""
    if branch.network not in networks:
        raise ValueError(
            f"guidance: need a network named {branch.network!r}, got "
            f"{sorted(networks)}. Pass networks={{{branch.network!r}: Network(...)}}."
        )
    return networks[branch.network]


def check_number(
    name: str, argument: str, value: Any, low: float | None = None
) -> None:
    """Raises ValueError for a Python number that is not finite or below `low`."""
    if isinstance(value, str) or value is None:
        raise ValueError(f"{name}: need a number for {argument}, got {value!r}.")
    if not isinstance(value, int | float):
        return
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{name}: need a finite {argument}, got {argument}={value!r}.")
    if low is not None and value < low:
        raise ValueError(
            f"{name}: need {argument} >= {low:g}, got {argument}={value!r}."
        )


def check_space(name: str, space: str) -> None:
    """Raises ValueError unless `space` is one of `SPACES`."""
    if space not in SPACES:
        raise ValueError(f"{name}: need space in {SPACES}, got space={space!r}.")
