"""Events of shared experts: where they are kept, and their gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from moe_routing.conformance.calls.shared_experts import SharedCase
from moe_routing.conformance.events.registry import event
from moe_routing.conformance.generators.shared import make_shared_case
from moe_routing.implementations import Capabilities


def _shared(
    slug: str, statement: str, occurs: Callable[[SharedCase], bool], width: int = 2, **parts: object
) -> None:
    @event(slug, statement, occurs)
    def _(capabilities: Capabilities) -> Iterator[SharedCase]:
        yield make_shared_case(
            dtype=capabilities.dtypes[0], tokens=2, hidden=4, width=width, seed=1, **parts
        )


def _of_kind(kind: str) -> Callable[[SharedCase], bool]:
    return lambda case: case.config.kind == kind and len(case.inputs.hidden) > 0


_shared(
    "shared-singular",
    "a shared expert as shared_expert",
    _of_kind("singular"),
    kind="singular",
    gated=False,
)
_shared(
    "shared-plural",
    "shared experts as shared_experts",
    _of_kind("plural"),
    kind="plural",
    gated=False,
)
_shared(
    "shared-plural-of-two",
    "two shared experts as shared_experts, in one MLP as wide as both",
    lambda case: _of_kind("plural")(case) and _halves_differ(case),
    width=4,
    kind="plural",
    gated=False,
)
_shared("shared-mlp", "a shared expert as shared_mlp", _of_kind("mlp"), kind="mlp", gated=False)
_shared("shared-absent", "no shared expert", _of_kind("none"), kind="none", gated=False)
_shared(
    "shared-gate-half-open",
    "a shared expert whose gate logit is 0",
    lambda case: case.inputs.gate is not None and _some_gate_logit_is_0(case),
    kind="singular",
    gated=True,
    zero_gate=True,
)


def _halves_differ(case: SharedCase) -> bool:
    """Tell whether the MLP may be two that contribute differently."""
    half, odd = divmod(len(case.inputs.up_proj), 2)
    down = case.inputs.down_proj
    return not odd and not np.array_equal(down[:, :half], down[:, half:])


def _some_gate_logit_is_0(case: SharedCase) -> bool:
    return bool((case.inputs.hidden @ case.inputs.gate.T == 0.0).any())
