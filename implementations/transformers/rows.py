"""What a row of the table says, and the claims that follow from its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from moe_routing.implementations.capabilities import Capabilities, Limits
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.replays import Replays
from moe_routing.implementations.torch_replay import FORCED
from moe_routing.reference import Preset, preset

_OPTIONAL = ("gate_bias", "per_expert_scale")


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
    configuration class leaves open.
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
        claims = dict.fromkeys(claim_of(preset(name), **self.varies) for name in self.served)
        return Capabilities(
            claims=tuple(claims),
            logits=self.logits,
            limits=self.limits,
            replays=self.replays or FORCED,
        )


def claim_of(model: Preset, **varies: Any) -> Claim:
    """Return the claim of what ``model`` has and nothing else, but for the axes in ``varies``.

    An array that the model has may also be absent: such a checkpoint holds zeros (ones, for
    scales). Groups are claimed in any number, by the model's rule.
    """
    config, bias = model.config, model.selection_bias
    groups = config.groups and GroupRule(top=(config.groups.top,), fill=(config.groups.fill,))
    axes: dict[str, Any] = {
        "groups": (groups,),
        "logit_softcap": (config.logit_softcap is not None,),
        "logit_multiplier": (config.logit_multiplier != 1.0,),
        "input_norm": (config.input_norm is not None,),
        "selection_bias": ("none",) if bias is None else ("none", bias),
        "gate_delta": (False,),
        "expert_table": (model.expert_table,),
    }
    axes |= {name: (False, True) if getattr(model, name) else (False,) for name in _OPTIONAL}
    for name in ("score", "weights_from", "renormalize", "scale"):
        axes[name] = (getattr(config, name),)
    for name in ("logits_dtype", "scores_dtype", "weights_dtype"):
        axes[name] = (getattr(config, name),)
    return Claim(**{**axes, **varies})
