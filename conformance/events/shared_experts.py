"""Events of shared experts: which form they are stored in, and their gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from moe_routing.conformance.calls.shared_experts import SharedCase
from moe_routing.conformance.events.registry import event
from moe_routing.conformance.generators.shared import make_shared_case
from moe_routing.implementations import Capabilities
from moe_routing.reference.shared_experts import SharedKind


def _shared(
    slug: str,
    statement: str,
    occurs: Callable[[SharedCase], bool],
    *,
    kind: SharedKind,
    gated: bool = False,
    width: int = 2,
    tokens: int = 2,
) -> None:
    """Register an event that a small call shows; where gated, one with gate logits of 0."""

    @event(slug, statement, occurs)
    def _(capabilities: Capabilities) -> Iterator[SharedCase]:
        yield make_shared_case(
            kind=kind,
            gated=gated,
            dtype=capabilities.dtypes[0],
            tokens=tokens,
            hidden=4,
            width=width,
            seed=1,
            zero_gate=gated,
        )


def _of_kind(kind: str) -> Callable[[SharedCase], bool]:
    return lambda case: case.config.kind == kind and len(case.inputs.hidden) > 0


_shared(
    "shared-singular", "a shared expert as shared_expert", _of_kind("singular"), kind="singular"
)
_shared("shared-plural", "shared experts as shared_experts", _of_kind("plural"), kind="plural")
_shared(
    "shared-plural-of-two",
    "two shared experts as shared_experts, in one MLP as wide as both",
    lambda case: _of_kind("plural")(case) and _halves_differ(case),
    width=4,
    kind="plural",
)
_shared("shared-mlp", "a shared expert as shared_mlp", _of_kind("mlp"), kind="mlp")
_shared("shared-absent", "no shared expert", _of_kind("none"), kind="none")
_shared(
    "shared-wide",
    "a shared expert of more than 128 rows, for more than 128 tokens",
    lambda case: len(case.inputs.up_proj) > 128 and len(case.inputs.hidden) > 128,
    width=136,
    tokens=130,
    kind="plural",
)
_shared(
    "shared-gate-half-open",
    "a shared expert whose gate logit is 0",
    lambda case: _some_gate_logit_is_0(case),
    kind="singular",
    gated=True,
)


def _halves_differ(case: SharedCase) -> bool:
    """Return whether the MLP may be two that contribute differently."""
    half, odd = divmod(len(case.inputs.up_proj), 2)
    down = case.inputs.down_proj
    return not odd and not np.array_equal(down[:, :half], down[:, half:])


def _some_gate_logit_is_0(case: SharedCase) -> bool:
    gate = case.inputs.gate
    return gate is not None and bool((case.inputs.hidden @ gate.T == 0.0).any())
