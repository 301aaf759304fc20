"""The algebra: branches, what they cost, and the two functions of a transform.

    guided = raw + sum_i weight_i(t) * (a_i - b_i)

`raw` is the plain conditional prediction; `a_i` and `b_i` are branches: predictions of
a network under one change of its inputs. A transform declares its branches and says
how it combines them; it never calls a network. `evaluate.py` calls, `plan.py` counts.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxguide import paths
from jaxguide.guidance._numbers import ANY, NATIVE, add_scaled, pytree
from jaxguide.paths import Array, Node, Path


class Tap:
    """A change inside the network, given to it as keyword arguments.

    Subclasses are frozen dataclasses: static and hashable. What must stay traced (a
    scale inside the network) is read from the transform that owns the branch: then
    `valued` is True and `arguments` gets that transform's `values`.
    """

    name = "tap"  # of the method, for error messages
    random = False  # whether `arguments` draws from the key
    valued = False  # whether `arguments` reads the numbers of its transform
    records = False  # whether the network returns a record, see `Outputs.record`

    @property
    def pair(self) -> str | None:
        """Name of a condition that runs beside the branch's own, as a second half of
        the batch that attention can see; only the first half is the prediction."""
        return None

    def arguments(
        self, network: "Network", key: Array | None, values: Any
    ) -> dict[str, Any]:
        """Keyword arguments for `network.predict`."""
        raise NotImplementedError

    def around(self, network: "Network") -> "Network":
        """The network that is called instead, such as one that sees windows."""
        return network

    def share(self, network: "Network") -> float:
        """FLOPs of the changed forward pass, relative to the full one."""
        del network
        return 1.0


class CondMap(Protocol):
    """A changed condition: `(cond, step, key) -> cond`. Hashable."""

    @property
    def name(self) -> str:
        """Of the method, for error messages."""
        ...

    @property
    def random(self) -> bool:
        """Whether it draws from the key."""
        ...

    def __call__(self, cond: Any, step: "Step", key: Array | None) -> Any:
        """The condition [B, ...] that the network is given."""
        ...


@dataclasses.dataclass(frozen=True)
class Branch:
    """A static description of one network call; equal branches are evaluated once.

    `cond` and `network` name an entry of the sampler's conditions and networks,
    `cond_map` changes that condition, `time` maps (noise time, next noise time) to the
    time that the network is told, `tap` changes the inside of the network, and `draw`
    tells apart several random draws of one transform. `rewrite` makes the input from
    first-round predictions: `(step, outputs) -> x`; such a branch is evaluated in a
    second round; one with an attribute `shared = True` reads `RAW` alone. A
    `differentiable` branch is counted but not called: the transform
    gets it as a function of x (`Outputs.function`) to take gradients of. `owner` is
    filled in by the evaluator.
    """

    cond: str = "cond"
    network: str = "main"
    cond_map: CondMap | None = None
    time: Callable[[Array, Array], Array] | None = None
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
        """This branch; it has an owner if it draws, reads what its transform has, or is
        called by it."""
        tap = self.tap is not None and (self.tap.random or self.tap.valued)
        draws = self.cond_map is not None and self.cond_map.random
        shared = self.rewrite is None or getattr(self.rewrite, "shared", False)
        if shared and not (tap or draws or self.differentiable):
            return self
        return dataclasses.replace(self, owner=owner)

    @property
    def calls(self) -> int:
        """Network evaluations per sample."""
        return 1 if self.tap is None or self.tap.pair is None else 2


RAW = Branch()
# The same network without its condition.
NULL = Branch(cond="null")


@pytree("predict")
class Network:
    """A predictor and what must be known about it. A pytree; `predict` holds weights.

    Args:
        predict: `(x [B, *D], t [B], cond, **taps) -> prediction [B, *D]`, or a pair
            (prediction, extra) whose second part is handed to the sampler, or a triple
            (prediction, extra or None, record) if a tap asks for a record. Wrap weights
            as `jax.tree_util.Partial(function, params)` so that they are traced.
        kind: what it predicts, one of `paths.KINDS`.
        path: the noise path it was trained on.
        depth: number of blocks that can be dropped through `keep_blocks`; 0 if none.
        flops: FLOPs of one forward pass per sample; None if unknown.
        block_flops: FLOPs of one block per sample.
        batch_time: whether a scalar time is widened to [B] before the call.
        tokens: (rows, columns) of its tokens, for taps that look at neighbours; None
            if unknown, then a square is assumed.
        calls: network evaluations that one prediction counts as.

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
    tokens: tuple[int, int] | None = None
    calls: int = 1

    def __post_init__(self):
        paths.check_kind("Network", self.kind)
        leaves = jax.tree.leaves(self.predict)
        if len(leaves) == 1 and leaves[0] is self.predict and callable(self.predict):
            object.__setattr__(self, "predict", jax.tree_util.Partial(self.predict))


class Step(NamedTuple):
    """What a transform may read during one sampling step."""

    x: Array  # [B, *D] noisy state
    node: Node  # noise time and the path's coefficients there, each [] or [B]
    conds: Mapping[str, Any]  # named conditions; leaves [B, ...]
    restart: Array  # [] bool: True where the previous step is no valid memory
    step_index: Array | int = 0  # [] int32
    next_node: Node | None = None  # where the step ends; None if nobody knows


class Guided(NamedTuple):
    """The running result of a chain, in the kind of the main network.

    `noise` is None while it follows from `prediction`; a transform that couples to the
    sampler (CFG++) sets it, and the sampler then renoises with it.
    """

    prediction: Array  # [B, *D]
    noise: Array | None = None  # [B, *D]

    def plus(self, weight: Array, change: Array) -> "Guided":
        """With `weight * change` added, bitwise unchanged where `weight` is 0."""
        return self._replace(prediction=add_scaled(self.prediction, weight, change))


class Outputs:
    """Predictions of the declared branches at one step, readable in any space.

    Lives inside one trace; it is not a pytree and never leaves a sampling step.
    """

    def __init__(self, network: Network, step: Step, key: Array | None = None):
        self.network, self.step, self.owner, self._key = network, step, 0, key
        self.extra: Any = None
        self._found: dict[Branch, tuple[Array, Array, Node]] = {}
        self._functions: dict[Branch, Callable[[Array], Array]] = {}
        self._records: dict[Branch, Any] = {}

    def view(self, owner: int) -> "Outputs":
        """The same predictions as the transform at position `owner` sees them."""
        twin = copy.copy(self)
        twin.owner = owner
        return twin

    def key(self, name: str, draw: int = 0) -> Array:
        """This step's PRNG key of the transform that asks, one for every `draw`.

        Raises:
            ValueError: if the sampler was given no key; `name` is who asks.
        """
        if self._key is None:
            raise ValueError(
                f"{name}: need a PRNG key to draw from, got key=None. "
                "Pass key=jax.random.key(0) to the sampler."
            )
        return jax.random.fold_in(jax.random.fold_in(self._key, self.owner), draw)

    def store(self, branch: Branch, prediction: Array, x: Array, node: Node) -> None:
        """Files the prediction of `branch` made at `(x, node)`."""
        self._found[branch] = (prediction, x, node)

    def store_function(self, branch: Branch, function: Callable) -> None:
        """Files a differentiable branch as a function x [B, *D] -> prediction."""
        self._functions[branch] = function

    def store_record(self, branch: Branch, record: Any) -> None:
        """Files what the network recorded while it evaluated `branch`."""
        self._records[branch] = record

    def record(self, branch: Branch) -> Any:
        """What the network recorded for a branch whose tap asks for it."""
        return self._records[branch.owned_by(self.owner)]

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

    def convert(self, value: Array, space: str, to: str) -> Array:
        """A prediction at the step's own (x, t) from one space to another."""
        spaces = [
            self.network.kind if name in (ANY, NATIVE) else name for name in (space, to)
        ]
        return paths.convert(value, self.step.x, self.step.node, *spaces)

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

    Implementations are frozen dataclasses registered as pytrees (`pytree`): weights are
    leaves (`Schedule`), all else is static and hashable. `apply` sees them with every
    schedule replaced by its number at this step.

    A transform with an attribute `gated = True` also has `gate(state) -> [] bool`:
    while it is False at run time the transform's branches are not evaluated. One whose
    taps are `valued` has `values(step)`, the traced numbers that its taps get.
    """

    def init(self, x: Array) -> Any:
        """State carried from step to step, a NamedTuple or (); `x` is [B, *D]."""
        ...

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """What must be evaluated while live, besides `RAW`."""
        ...

    def live(self, t: float, index: int = 0) -> bool:
        """Whether branches are needed in step `index`, which starts at host time `t`.

        False where the result is known to be neutral, or made from what was saved.
        """
        ...

    def apply(
        self, guided: Guided, state: Any, outputs: Outputs, step: Step, *, live: bool
    ) -> tuple[Guided, Any]:
        """The next running result and state; updates the state also when not live."""
        ...


class Memoryless:
    """The frame of a transform without state: while live, `change` is all it does."""

    def init(self, x: Array) -> Any:
        """No state."""
        del x
        return ()

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """Nothing beyond the raw prediction."""
        del network
        return ()

    def apply(
        self, guided: Guided, state: Any, outputs: Outputs, step: Step, *, live: bool
    ) -> tuple[Guided, Any]:
        """`change` while live."""
        return (self.change(guided, outputs, step) if live else guided), state

    def change(self, guided: Guided, outputs: Outputs, step: Step) -> Guided:
        """The next running result of a live step."""
        raise NotImplementedError


class Weighted(Memoryless):
    """The frame of a transform with one `weight`."""

    weight: Any  # a Schedule; inside `apply` its number at this step
    neutral: float = 0.0  # the weight that switches the transform off

    def live(self, t: float, index: int = 0) -> bool:
        """False where the weight is neutral."""
        del index
        return not self.weight.neutral_at(t, self.neutral)


def find_network(networks: Mapping[str, Network], branch: Branch) -> Network:
    """The network of a branch, with its tap; raises ValueError if it is not there."""
    if branch.network not in networks:
        raise ValueError(
            f"guidance: need a network named {branch.network!r}, got "
            f"{sorted(networks)}. Pass networks={{{branch.network!r}: Network(...)}}."
        )
    network = networks[branch.network]
    return network if branch.tap is None else branch.tap.around(network)
