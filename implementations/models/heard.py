"""One call of a block, read: its own tensors, its hidden states, and the routes that it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from moe_routing.implementations.capabilities import Numerics
from moe_routing.implementations.computes import Products
from moe_routing.implementations.models.arrays import (
    CannotRead,
    array,
    dtype_of,
    of_dtype,
    rows,
    tensors_of,
)
from moe_routing.implementations.models.claims import router_config
from moe_routing.implementations.models.experts import Held, NotKnown, held
from moe_routing.implementations.models.seen import Part
from moe_routing.implementations.models.watching import Call
from moe_routing.implementations.transformers.reading import READERS, completed
from moe_routing.reference import RouterConfig, RouterInputs, Routing

WORK = 2**29
"""About how many products of experts are made again to judge one call."""

_GATE = ("gate_weight",)


@dataclass(frozen=True, eq=False)
class Heard:
    """One call of a block.

    ``ungraded`` says why no gradient came, where none did; ``times`` how often the pass called each
    router and experts module: the gradients of its tensors are sums over all of these.
    """

    call: Call
    ungraded: str
    times: Mapping[int, int]

    @cached_property
    def config(self) -> RouterConfig:
        """What the router should be, by the model's configuration. Errors: ``ValueError``."""
        site = self.call.site
        return router_config(site.row, site.config, len(self.gate["gate_weight"]))

    @cached_property
    def gate(self) -> dict[str, Any]:
        """The arrays of the block's own router, by the names of ``RouterInputs``."""
        site = self.call.site
        own = tensors_of(site.block)
        found = {field: own[name] for name, field in site.row.arrays.items() if name in own}
        if lacking := [each for each in _GATE if each not in found]:
            names = [n for n, each in site.row.arrays.items() if each in lacking]
            raise CannotRead(f"its router has no tensor {', '.join(names)}: is it wrapped?")
        arrays = {name: array(name, tensor) for name, tensor in found.items()}
        if "selection_bias" in arrays:  # [1, E] in some
            arrays["selection_bias"] = arrays["selection_bias"].reshape(-1)
        return arrays

    @cached_property
    def hidden(self) -> Any:
        """The hidden states of the routing: those of the block, unless it adds noise to them."""
        call = self.call
        noisy = call.site.block.training and _jitter(call.site.block) != ""
        inner = call.router_hidden is not None and (noisy or call.site.row.calls == "router")
        whole = call.router_hidden if inner else call.hidden
        if whole is None or not hasattr(whole, "reshape"):
            raise CannotRead("it was called without hidden states")
        return rows(whole)

    @cached_property
    def router_inputs(self) -> RouterInputs:
        """The call of the block's own router. Errors: ``CannotRead``."""
        hidden, gate = self.hidden, dict(self.gate)
        if "expert_table" in gate:
            gate["token_ids"] = array("input_ids", self.call.router_others[-1]).reshape(-1)
        on = next((n for n, f in self.call.site.row.arrays.items() if f == "selection_bias"), "")
        made: RouterInputs = of_dtype(
            RouterInputs,
            dtype_of(hidden),
            {"hidden": array("hidden states", hidden), **gate},
            selection_bias_on="block" if on.count(".") == 0 and on else "gate",
        )
        return made

    def given(self) -> tuple[Any, ...]:
        """The hidden states, ids and weights that the experts got, None where they got none."""
        given = self.call.experts_given
        return tuple(given.get(name) for name in ("hidden", "ids", "weights"))

    @cached_property
    def native(self) -> Routing:
        """The routing that really ran: what the experts got, or else what the router returned."""
        call, row = self.call, self.call.site.row
        returned, heard = call.returned, self.given()
        if returned is None and heard[1] is None:
            raise CannotRead("neither its router nor its experts were called")
        if row.reads in ("experts", "divided") and heard[1] is None:
            heard = _of_router(returned)
        if returned is None:
            return Routing(weights=heard[2], expert_ids=heard[1])
        if row.reads == "router" and heard[1] is not None:
            return Routing(weights=heard[2], expert_ids=heard[1])
        found = completed(READERS[row.reads](self.config, returned, heard), self.config.top_k)
        return found if row.logits == "routed" else replace(found, logits=None)

    @cached_property
    def routed_rows(self) -> Any:
        """The tokens that have a route: a capacity takes it from some."""
        heard = self.given()
        if self.call.site.row.reads == "one-hot" and heard[1] is not None:
            there: Any = heard[1].flatten(1).any(dim=1).cpu().numpy()
            return np.flatnonzero(there)
        return np.arange(len(self.hidden))

    @cached_property
    def held(self) -> Held:
        """What the experts of the block are. Errors: ``NotKnown``."""
        experts = self.call.site.experts
        if experts is None:
            raise NotKnown("its experts are no module of their own")
        return held(experts)

    @cached_property
    def routes(self) -> tuple[Any, Any]:
        """The ids, -1 where there is no route, and weights that the experts got, as arrays."""
        _, ids, weights = self.given()
        if ids is None or weights is None:
            raise NotKnown("its experts were not called with ids and weights")
        shape = (-1, weights.shape[-1])
        if self.call.site.row.reads == "one-hot":
            there = array("ids", ids.flatten(1))
            picked_ids = np.where(there.any(axis=1), there.argmax(axis=1), -1)[:, None]
            return picked_ids, np.where(picked_ids < 0, 0.0, array("weights", weights))
        return array("expert ids", ids.reshape(shape)), array("weights", weights.reshape(shape))

    @property
    def numerics(self) -> Numerics:
        """What torch may do on the call's device: float32 products in tf32 or not."""
        import torch

        tf32 = self.call.device.startswith("cuda") and torch.backends.cuda.matmul.allow_tf32
        return Numerics(multiply="tf32") if tf32 else Numerics()

    @property
    def products(self) -> Products:
        """The same of experts."""
        return "tf32" if self.numerics.multiply == "tf32" else "float32"

    def check(self, part: Part) -> None:
        """Raise ``NotKnown`` where what is seen of a part is not all of it, or is random."""
        site = self.call.site
        if getattr(site.experts, "_is_expert_parallel", False):
            raise NotKnown("its experts are spread over ranks")
        if part == "routing" and site.router.training and (noise := _jitter(site.router)):
            raise NotKnown(f"its router adds noise in training ({noise})")
        for each in (site.router,) if part == "routing" else (site.block, site.experts):
            dropout = [m for m in each.modules() if _drops(m)] if each is not None else []
            if dropout and each.training:
                raise NotKnown(f"it drops out at random in training (p={dropout[0].p})")

    def affordable(self, top_k: int) -> int:
        """Return how many tokens of ``top_k`` routes each are judged at the most."""
        down = self.held.matrices["down_weight"]
        return int(max(16, WORK // (3 * top_k * down.shape[1] * down.shape[2])))


def _drops(module: Any) -> bool:
    return "Dropout" in type(module).__name__ and bool(getattr(module, "p", 0))


def _jitter(module: Any) -> str:
    """Return the noise that a module adds in training, in words; empty: none."""
    found = {n: getattr(module, n, None) for n in ("jitter_noise", "moe_jitter_eps")}
    return ", ".join(f"{name}={value}" for name, value in found.items() if value)


def _of_router(returned: Any) -> tuple[Any, ...]:
    """Return ids and weights of what a router returned: logits, weights, ids."""
    if not isinstance(returned, tuple) or len(returned) < 3:
        raise CannotRead("its experts were not called, and its router returned logits alone")
    return None, returned[2], returned[1]


def some_rows(inputs: RouterInputs, kept: Any) -> RouterInputs:
    """Return the inputs of some tokens, which are not checked again."""
    made = object.__new__(type(inputs))
    for name, value in vars(inputs).items():
        by_token = name in ("hidden", "token_ids", "logits") and value is not None
        object.__setattr__(made, name, value[kept] if by_token else value)
    return made


def some_routes(native: Routing, kept: Any) -> Routing:
    """Return the routes of some tokens."""
    return Routing(**{n: None if v is None else v[kept] for n, v in vars(native).items()})
