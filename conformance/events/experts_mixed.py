"""Events of experts, and of their gradients: sizes that meet what else a call may have.

A kernel has a path for wide tokens, for many, or for 16 bits, and a path may leave a bias out, or
absent routes. Each case here has one size of a path and all that is claimed of the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.events.experts import cases
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.generators.expert_gradients import with_cotangent
from moe_routing.conformance.judge.expert_gradients import Learning
from moe_routing.conformance.judge.experts import Layer
from moe_routing.implementations import Capabilities
from moe_routing.reference.activations import ACTIVATIONS
from moe_routing.reference.formats import Ids

Sizes = dict[str, int]

LOSSY = ((2, 0), (0, -1), (3, 3), (-1, -1), (0, 2))
"""Five tokens of two slots, for four experts: absent routes, and an expert that comes twice."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """A call in outline: its experts, the sizes that tell it, others, and what it has if claimed.

    ``narrow`` asks for inputs of 16 bits, ``last`` for the last of these; ``first`` lists values
    that are taken before others: an activation, a gate, the side of the weight.
    """

    slug: str
    ids: Any
    sizes: Sizes
    beside: Sizes = field(default_factory=dict)
    count: int = 4
    narrow: int = 0
    first: dict[str, Any] = field(default_factory=dict)
    weights: str = "positive"

    @property
    def statement(self) -> str:
        """What the case is, in words."""
        sizes = ", ".join(f"{name}={size:,}" for name, size in self.sizes.items())
        return f"a call of {sizes}, with biases, absent and repeated experts as far as claimed"

    def cases(self, capabilities: Capabilities) -> Iterator[ExpertsCase]:
        """Yield what is claimed of it, the fullest first."""
        dtypes = capabilities.dtypes
        if self.narrow:
            dtypes = tuple(sorted(dtypes, key=lambda name: name == "float32"))
            dtypes = (*dtypes[self.narrow - 1 :], *dtypes[: self.narrow - 1])
        sizes = {"H": 4, "F": 4, **self.beside, **self.sizes}
        parts: dict[str, Any] = {
            "biased": (True, False),
            "sizes": (sizes["H"], sizes["F"]),
            "weights": self.weights,
            **{name: _with(value, _AXES[name]) for name, value in self.first.items()},
        }
        for ids in self._routes():
            yield from cases(replace(capabilities, dtypes=dtypes), ids, self.count, **parts)

    def _routes(self) -> Iterator[Ids]:
        """Yield the experts of every slot, then without absent ones and repeats."""
        ids = np.array(self.ids, np.int64)
        yield ids
        tokens, slots = ids.shape
        plain = (np.arange(tokens)[:, None] * slots + np.arange(slots)) % self.count
        ordered = np.sort(ids, axis=1)
        odd = (ordered < 0).any(axis=1) | (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
        yield np.where(odd[:, None], plain, ids)

    def seen(self, layer: Layer) -> bool:
        """Whether a call has the sizes that tell it, and some expert runs."""
        inputs = layer.inputs
        found = {
            "T": inputs.num_tokens,
            "E": inputs.num_experts,
            "K": inputs.top_k,
            "H": inputs.hidden_size,
            "F": inputs.width,
        }
        return found.items() >= self.sizes.items() and bool(layer.counts.any())


_AXES: dict[str, tuple[Any, ...]] = {
    "activations": ACTIVATIONS,
    "gated": (True, False),
    "weight_on": ("output", "input"),
    "values": ("eighths", "normal"),
}


def _with(first: Any, others: tuple[Any, ...]) -> tuple[Any, ...]:
    return (first, *(each for each in others if each != first))


def _rows(*counts: int) -> Ids:
    """Return tokens whose first slots go to expert 0, and whose second ones fill experts up."""
    second = np.repeat(np.arange(1, len(counts)), counts[1:])
    return np.stack([np.zeros(len(second), np.int64), second], axis=1)


def _late(experts: int) -> Any:
    """Return routes to the second half of the experts, of which the last has most."""
    last, half = experts - 1, experts // 2
    return ((last, half), (last, -1), (half + 1, last), (last, half + 2), (-1, -1))


_PLAIN_INPUT: dict[str, Any] = {"gated": False, "weight_on": "input"}

MIXES = (
    Mix(slug="96-columns", ids=LOSSY, sizes={"H": 96}, beside={"F": 48}, narrow=1),
    Mix(
        slug="96-width",
        ids=LOSSY,
        sizes={"F": 96},
        beside={"H": 48},
        narrow=2,
        first={"activations": "gelu", **_PLAIN_INPUT},
    ),
    Mix(
        slug="192-columns",
        ids=LOSSY,
        sizes={"H": 192},
        beside={"F": 24},
        first={"activations": "silu", "weight_on": "input"},
    ),
    Mix(
        slug="192-width",
        ids=LOSSY,
        sizes={"F": 192},
        beside={"H": 24},
        first={"activations": "clamped-swiglu"},
    ),
    Mix(slug="one-token", ids=((3, 1, 0, 2),), sizes={"T": 1, "H": 270}, beside={"F": 12}),
    Mix(
        slug="530-tokens",
        ids=np.resize(np.array(LOSSY), (530, 2)),
        sizes={"T": 530},
        first={"activations": "gelu-tanh", **_PLAIN_INPUT},
        weights="signed",
    ),
    Mix(
        slug="rows-of-blocks",
        ids=_rows(128, 32, 96),
        sizes={"T": 128, "E": 3},
        count=3,
        narrow=1,
        weights="signed",
    ),
    Mix(
        slug="20-experts",
        ids=np.arange(40).reshape(20, 2) % 20,
        sizes={"E": 20, "H": 130},
        count=20,
    ),
    *(
        Mix(
            slug=f"{number}-experts",
            ids=_late(number),
            sizes={"E": number},
            count=number,
            first={"weight_on": "input"},
        )
        for number in (32, 64, 128, 256)
    ),
)
"""The calls, the plainest first."""

FAMILIES["ran-mixed"] = "a size of a kernel's path beside all else that a call of experts may have"
FAMILIES["learned-mixed"] = "gradients in a size of a kernel's path beside all else that is claimed"


def _register(mix: Mix) -> None:
    @event(
        f"ran-mixed:{mix.slug}",
        mix.statement,
        lambda layer: isinstance(layer, Layer) and mix.seen(layer),
    )
    def _(capabilities: Capabilities) -> Iterator[ExpertsCase]:
        yield from mix.cases(capabilities)

    @event(
        f"learned-mixed:{mix.slug}",
        f"gradients of {mix.statement}",
        lambda each: isinstance(each, Learning) and mix.seen(each.layer),
    )
    def _(capabilities: Capabilities) -> Iterator[ExpertsCase]:
        yield from map(with_cotangent, mix.cases(capabilities))


for _mix in MIXES:
    _register(_mix)
