"""Known divergences of one witness, written and read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from moe_routing.conformance import Case, Divergence, load_known, save_case
from moe_routing.conformance.calls.case import AnyCase
from moe_routing.reference import RouterConfig, RouterInputs


def case(
    *, bias: str | None = None, tokens: int = 2, dtype: str = "float32", **fields: Any
) -> Case:
    """Return a call of few tokens and four experts, with these fields of its configuration."""
    hidden = np.resize(np.float32([[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0]]), (tokens, 4))
    biased = {"selection_bias": np.zeros(4), "selection_bias_on": bias} if bias else {}
    inputs = RouterInputs(hidden=hidden, gate_weight=np.eye(4), dtype=dtype, **biased)
    return Case(config=RouterConfig(**{"num_experts": 4, "top_k": 2, **fields}), inputs=inputs)


ENTRY: dict[str, Any] = {
    "id": "sigmoid-off-by-one",
    "adapters": ["made-up"],
    "clause": "weights.match",
    "reason": "the sigmoid path adds one",
    "link": "https://example.org/issues/1",
    "witness": "witness.json",
}
"""An entry with every key that is required."""


def written(folder: Path, *entries: dict[str, Any], witness: AnyCase | None = None) -> Path:
    """Write a list of these entries, and the witness that they name."""
    save_case(witness or case(score="sigmoid"), folder / "witness.json")
    path = folder / "known.toml"
    path.write_text(tomli_w.dumps({"divergence": list(entries)}))
    return path


def divergence(folder: Path, *, witness: AnyCase | None = None, **parts: Any) -> Divergence:
    """Return ``ENTRY`` with some ``parts``, as read from a file."""
    (entry,) = load_known(written(folder, {**ENTRY, **parts}, witness=witness))
    return entry
