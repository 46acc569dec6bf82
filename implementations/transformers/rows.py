"""What a row of the table says, and the claims that follow from its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from moe_routing.implementations.capabilities import Capabilities, Limits
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.promises import Promises, Slots
from moe_routing.implementations.replays import Replays
from moe_routing.implementations.torch_replay import FORCED
from moe_routing.reference.config import LEAST_PRECISE

FLOAT32_GATE: dict[str, Any] = {"gate_dtype": LEAST_PRECISE}
"""What varies where loading keeps the gate in float32: its numbers may be of 16 bits, or not."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One router of the package: where it is, what holds its arrays, what it serves.

    ``name`` is the adapter's, after ``transformers:``, and the model type unless
    ``model_type`` says otherwise. ``block`` is the module class that routes, as
    ``file.Class``, built from ``arguments`` and the model type's configuration, which is
    given ``settings`` and, once more in the part called ``nested``, the same again.
    ``router`` is the router within the block (empty: the block itself), ``arrays`` maps
    its tensors to the fields of ``RouterInputs``. ``calls`` says whether the block is run
    or just its router, ``reads`` how the answer is read off, ``at`` under which name the
    block stands in the model. ``presets`` (default: ``name``) are the published models it
    serves; ``replays`` is what can be forced where it takes its top k, None where it takes
    none; a claim is what they have, widened by ``varies``: the axes that the
    configuration class leaves open. ``slots`` are ``descending`` where the router takes a
    top-k of torch with ``sorted`` as it is by default, which torch documents.
    """

    name: str
    block: str
    arrays: Mapping[str, str]
    varies: Mapping[str, Any] = field(default_factory=dict)
    presets: tuple[str, ...] = ()
    model_type: str = ""
    router: str = "gate"
    at: str = "mlp"
    settings: Mapping[str, Any] = field(default_factory=dict)
    nested: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    calls: Literal["block", "router"] = "block"
    reads: Literal["experts", "divided", "router", "dense", "sorted", "one-hot"] = "experts"
    logits: Literal["routed", "none"] = "routed"
    limits: Limits = field(default_factory=Limits)
    replays: Replays | None = FORCED
    slots: Slots = "free"

    @property
    def config_type(self) -> str:
        """The model type whose configuration class makes the block."""
        return self.model_type or self.name

    @property
    def served(self) -> tuple[str, ...]:
        """The presets of the published models that it serves."""
        return self.presets or (self.name,)

    def capabilities(self) -> Capabilities:
        """Return what the row claims: what its presets have, widened by ``varies``."""
        claims = dict.fromkeys(Claim.of_preset(name, **self.varies) for name in self.served)
        rules = [rule for claim in claims for rule in claim.groups if rule is not None]
        best_two = any(2 in rule.top for rule in rules)  # ``topk(2)`` of every group
        return Capabilities(
            claims=tuple(claims),
            logits=self.logits,
            limits=replace(self.limits, min_group_size=2) if best_two else self.limits,
            replays=self.replays or FORCED,
            promises=Promises(slots=self.slots),
        )
