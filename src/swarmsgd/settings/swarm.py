"""How one node takes part in a swarm: the one list of these settings.

`join()`, the command line, recipes, the agreement of the nodes, records, summaries and titles read
the dataclass. A field's metadata says more of it:

* `agreed`: whether all nodes must have it alike;
* `offered`: whether `swarmsgd train` and `simulate` have it as an option;
* `decided`: makes its value in records, with what was left to the package decided (`rotation=None`
  by the bits); without it they hold the value as given;
* `resumes`: what of a checkpoint goes on only if it is the same: the random `streams` with the
  places in bursts and rounds, or what was learned of the `code`'s cells;
* `words`: makes its words in the title of a run; without it the title has name and value, if that
  is not the default.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from swarmsgd import graphs
from swarmsgd.checks import known, number, one_of, whole
from swarmsgd.codec import rotates
from swarmsgd.core.node import Lengths
from swarmsgd.errors import ConfigError
from swarmsgd.graphs import Graph, LiveGraph
from swarmsgd.seeds import stream
from swarmsgd.settings.options import setting

MODES: Mapping[str, str] = {
    "non-blocking": "training goes on while an exchange is in flight; nothing ever waits",
    "blocking": "the initiator waits for the reply before its next step",
    "matching": "all nodes of a round are paired from a shared seed; deterministic, waits",
}
"""Mode name -> one line of help."""

BUFFERS: Mapping[str, str] = {
    "local": "those of the node that asks, as its own training left them",
    "average": "averages over the nodes; those of a parametrization are the first node's",
}
"""What floating-point buffers of a mean model are -> one line of help."""

DIVERGENCES: Mapping[str, str] = {
    "raise": "the step raises ModelError; nothing of it was sent to anybody",
    "heal": "it begins again from its copy, which averages with others, and goes on",
}
"""What a node does whose model became NaN or Inf -> one line of help."""

BITS: tuple[int | None, ...] = (None, 3, 4, 5, 6, 7, 8, 16)
"""Bits a coordinate on the wire; None is float32."""

NEVER_NEGATIVE = (
    "exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "acc_delta", "exp_inf", "grad_avg",
)  # fmt: skip
"""State of torch's optimizers that is not exchanged: a step takes its root or divides by it, or (of
`grad_avg`) takes the root of its difference to such state.
"""

_SAFE_EPS = 1e-4

OPEN_GRAPH = "cycles:8"
"""The graph of an open swarm, if none is named."""

LARGEST_SEED = 2**63 - 1


def lengths_of(text: int | str) -> Lengths:
    """From `4`, `"4"` or `"geometric:4"`. Raises ConfigError."""
    word, _, digits = str(text).rpartition(":")
    if word in ("", "geometric") and digits.isdecimal() and int(digits) >= 1:
        return Lengths(int(digits), geometric=word == "geometric")
    raise ConfigError(
        f'local_steps is {text!r}, wanted a whole number of at least 1 or "geometric:4": '
        "the number of optimizer steps between two exchanges"
    )


def lengths_stream(seed: int, node: int, *, rounds: bool) -> np.random.Generator:
    """What one node's burst lengths are drawn from.

    In matching mode (`rounds`) that is the same for all nodes: a round is equally long for each, or
    they would not make the same number of them.
    """
    return stream("lengths", seed, 0 if rounds else 1 + node)


@dataclass(frozen=True, kw_only=True)
class SwarmSettings:
    """How a swarm exchanges: what `join` takes. Checked when made: raises ConfigError."""

    graph: str | Graph = setting(
        "complete", agreed=True, words=str, table=graphs.GRAPHS, decided=lambda s: s.graph_name
    )
    """Who may exchange with whom: complete, ring, random-regular:4, ...; from Python also a
    Graph."""

    local_steps: int | str = setting(
        4,
        agreed=False,
        resumes="streams",
        words="H {}".format,
        decided=lambda s: str(s.local_steps),
    )
    """Optimizer steps between two exchanges; geometric:4 draws their number, with mean 4."""

    mode: str = setting("non-blocking", agreed=True, resumes="streams", words=str, table=MODES)
    """non-blocking never waits for a peer; blocking and matching do."""

    bits: int | None = setting(
        8,
        agreed=True,
        resumes="code",
        words=lambda bits: "float32" if bits is None else f"{bits} bits",
    )
    """Bits a parameter on the wire, 3 to 8 or 16; none sends float32."""

    rotation: bool | None = setting(
        None, agreed=True, resumes="code", decided=lambda s: rotates(s.bits, s.rotation)
    )
    """Rotate blocks before they are coded: more time, less noise where few parameters change
    much; auto (None) does at 6 bits and less."""

    exchange_state: tuple[str, ...] = setting(
        (), agreed=True, resumes="code", decided=lambda s: list(s.exchange_state)
    )
    """Names of optimizer state that is averaged with the model, for instance momentum_buffer, or
    momentum_buffer:4 for 4 bits a number of its own."""

    seed: int = setting(0, agreed=True, resumes="streams")
    """Seeds the choice of partners and, for random graphs, the graph. Not the model."""

    broadcast_start: bool = setting(True, agreed=True, offered=False)
    """Begin with node 0's parameters and buffers everywhere; False: each keeps its own."""

    buffers: str = setting("local", agreed=True, offered=False, table=BUFFERS)
    """Floating-point buffers of a mean model: local, those of the node that asks; or average."""

    on_divergence: str = setting("raise", agreed=False, offered=False, table=DIVERGENCES)
    """What a node does whose model has diverged (NaN, or beyond 1e34): raise, or heal."""

    refuse_beyond: float | None = setting(None, agreed=False, offered=False)
    """Refuse a peer's model that is this many times farther away than usual (50, say): a broken or
    lying peer. None takes all. It costs a pass and a copy of the model in each exchange."""

    join_timeout_s: float = setting(300.0, agreed=False, offered=False)
    """How long join() waits for all nodes to appear before it says who is missing."""

    def __post_init__(self) -> None:
        if not isinstance(self.graph, str | Graph):
            raise ConfigError(f"graph is {self.graph!r}, wanted a Graph or the name of one")
        lengths_of(self.local_steps)
        one_of("mode", self.mode, MODES)
        one_of("buffers", self.buffers, BUFFERS)
        _check_bits("bits", self.bits)
        if self.rotation not in (None, False, True):
            raise ConfigError(f"rotation is {self.rotation!r}, wanted True, False or None")
        whole("seed", self.seed, 0, LARGEST_SEED)
        one_of("on_divergence", self.on_divergence, DIVERGENCES)
        if self.refuse_beyond is not None:
            number("refuse_beyond", self.refuse_beyond, above=1)
        number("join_timeout_s", self.join_timeout_s, above=0)
        object.__setattr__(self, "exchange_state", _checked_states(self.exchange_state))

    def states(self) -> list[tuple[str, int | None]]:
        """Name and bits of each optimizer state that is exchanged."""
        return [_state(text, self.bits) for text in self.exchange_state]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """From keywords. Raises ConfigError for one that is no setting, with what was meant."""
        known("setting", given, [field.name for field in fields(cls)])
        return cls(**given)

    @property
    def graph_name(self) -> str:
        """The graph's name, also of one that was handed in."""
        return self.graph if isinstance(self.graph, str) else self.graph.name

    def graph_of(self, num_nodes: int) -> Graph:
        """The graph, for so many nodes. Raises ConfigError if it has others."""
        if isinstance(self.graph, str):
            return graphs.parse(self.graph, num_nodes, self.seed)
        if self.graph.num_nodes != num_nodes:
            raise ConfigError(
                f"the graph {self.graph.name} has {self.graph.num_nodes} nodes, the run has "
                f"{num_nodes}: make the graph for as many nodes as there are processes"
            )
        return self.graph

    def live_graph(self, node: int, *, given: bool) -> LiveGraph:
        """The graph of one node of an open swarm. The default, if none was `given`, has bounded
        degrees. Raises ConfigError for one that needs a fixed list of nodes.
        """
        if not isinstance(self.graph, str):
            raise ConfigError("an open swarm takes no Graph, but a name: cycles:8, or complete")
        return LiveGraph(self.graph if given else OPEN_GRAPH, self.seed, node)

    def in_effect(self, uses: Collection[str] | None = None) -> dict[str, Any]:
        """Every setting as records and summaries hold it, with what was left to the package
        decided; None for those that are not in `uses`, if that is given.
        """
        values: dict[str, Any] = {}
        for field in fields(self):
            decided = field.metadata.get("decided")
            values[field.name] = decided(self) if decided else getattr(self, field.name)
        return {name: v if uses is None or name in uses else None for name, v in values.items()}

    def words(self, uses: Collection[str]) -> list[str]:
        """Those settings that are in `uses`, for the title of a run."""
        found: list[str] = []
        for field in fields(self):
            value, words = getattr(self, field.name), field.metadata.get("words")
            if field.name not in uses:
                continue
            if words is not None:
                found.append(words(value))
            elif value != field.default:
                found.append(f"{field.name} {_text(value)}")
        return found


AGREED = tuple(field.name for field in fields(SwarmSettings) if field.metadata["agreed"])
"""The settings that all nodes must have alike."""


def resuming(what: str) -> tuple[str, ...]:
    """The settings on which `what` of a checkpoint hangs."""
    return tuple(f.name for f in fields(SwarmSettings) if f.metadata.get("resumes") == what)


def _check_bits(name: str, got: Any) -> None:
    if got not in BITS or isinstance(got, bool):
        names = ", ".join("none" if b is None else str(b) for b in BITS)
        raise ConfigError(f"{name} is {got!r}, wanted one of {names}")


def _checked_states(texts: Any) -> tuple[str, ...]:
    """`exchange_state` as a tuple; ConfigError for what cannot be averaged."""
    fits = isinstance(texts, list | tuple) and all(isinstance(t, str) and t for t in texts)
    names = [text.partition(":")[0] for text in texts] if fits else []
    if not fits or not all(names) or len(set(names)) < len(names):
        raise ConfigError(
            f"exchange_state is {texts!r}, wanted names of optimizer state, each once, for "
            'instance ("momentum_buffer",)'
        )
    for text in texts:
        name, _ = _state(text, None)
        if name in NEVER_NEGATIVE:
            raise ConfigError(
                f"exchange_state has {name!r}, and what a step takes the root of must not go below "
                "zero: an average reaches a node's own value late, as a difference, and could make "
                "it negative. Leave it out"
            )
    return tuple(texts)


def doubt_of_averaging(exchanged: Iterable[str], kept: Iterable[str], eps: float) -> str | None:
    """Why it is hardly meant to average the state `exchanged` of an optimizer that has the state
    `kept`, too. Adam divides its mean of gradients, `exp_avg`, by the root of a mean of squares.
    """
    if "exp_avg" not in exchanged or not set(kept) & set(NEVER_NEGATIVE) or eps >= _SAFE_EPS:
        return None
    return (
        "exchange_state averages 'exp_avg', but what it is divided by stays on each node: where a "
        "node's own gradients are tiny, what others bring makes steps without bound, and runs have "
        f"ended in NaN within twenty steps. Leave it out, or make eps {_SAFE_EPS:g} or larger"
    )


def _state(text: str, default: int | None) -> tuple[str, int | None]:
    """Name and bits of `momentum_buffer`, `momentum_buffer:4` or `momentum_buffer:none`."""
    name, colon, word = text.partition(":")
    if not colon:
        return name, default
    bits = None if word == "none" else int(word) if word.isdecimal() else word
    _check_bits(f"the bits of {name} in exchange_state", bits)
    return name, bits  # pyright: ignore[reportReturnType]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(value)
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def with_settings(function: Callable[..., Any]) -> inspect.Signature:
    """The signature of `function`, which takes `**settings` for `SwarmSettings.of`, with every
    setting by name, type and default in place of these.
    """
    own = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    mine = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=field.type,
        )
        for field in fields(SwarmSettings)
    ]
    positional = [p for p in own if p.kind is p.POSITIONAL_OR_KEYWORD]
    return inspect.signature(function).replace(
        parameters=[*positional, *mine, *(p for p in own if p.kind is p.KEYWORD_ONLY)]
    )
