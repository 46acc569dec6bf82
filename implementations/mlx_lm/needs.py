"""What the rows of mlx-lm's routers share: the claims of their models."""

from __future__ import annotations

from typing import Any

from moe_routing.implementations.claims import Claim
from moe_routing.implementations.from_two import FromTwo
from moe_routing.implementations.permitted import ANY
from moe_routing.reference import Renormalize

SUM, SUM_EPS = Renormalize(), Renormalize(eps=1e-20)
IN_DTYPE = ("input",)
_NARROW: dict[str, Any] = {"logits_dtype": IN_DTYPE, "weights_dtype": IN_DTYPE}
LINEAR: dict[str, Any] = {"gate": "gate.weight", "experts": "switch_mlp"}


def needs(preset: str, **axes: Any) -> tuple[Claim, ...]:
    """Claim what a model needs, with the gate and the weights in the dtype of the hidden states."""
    return (Claim.of_preset(preset, **{**_NARROW, **axes}),)


def rounded(preset: str, **axes: Any) -> tuple[Claim, ...]:
    """Claim a softmax whose scores are rounded to the dtype of the logits, as MLX returns them."""
    return needs(preset, **{"scores_dtype": IN_DTYPE, **axes})


def v3(preset: str, norm: Renormalize = SUM, **axes: Any) -> tuple[Claim, ...]:
    """Claim DeepSeek-V3's router, which is normalised from K = 2 on."""
    either = {"groups": (None, *Claim.of_preset("deepseek_v3").groups), "scale": ANY, **axes}
    return needs(preset, renormalize=(None, FromTwo(norm)), **either)
