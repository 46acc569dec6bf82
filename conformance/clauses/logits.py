"""Clauses of the chapter on logits (docs/spec/logits.md)."""

from __future__ import annotations

from moe_routing.conformance.clauses.registry import clause
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.failure import Failure, first_failure
from moe_routing.conformance.generators.axes import HIDDEN_SIZES, PUBLISHED_HIDDEN_SIZES
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Capabilities

_EXACT_AT_PUBLISHED_SIZES = Focus(
    recipes=(
        "lattice",
        "lattice",
        "lattice",
        "table",
        "normal",
        "wide",
        "near-ties",
        "bfloat16-steps",
    ),
    hidden_sizes=HIDDEN_SIZES + PUBLISHED_HIDDEN_SIZES * 4,
)


@clause(
    "logits.match",
    "MUST",
    why="Logits rounded on the way (a bfloat16 gate, an fp8 one, a reinterpreted buffer) route "
    "near ties elsewhere than the model was trained to; on exact cases nothing excuses it.",
    rules=("LOG-1", "LOG-5", "LOG-6", "LOG-7", "PIPE-4"),
    bugs=("M10", "M12", "M40", "M52", "M66"),
    events=(
        "exact-logits",
        "fine-logits",
        "fine-logits-beside-16-bits",
        "fine-gate",
        "published-width",
        "published-width-of-groups",
        "hidden-above-4096",
        "ragged-columns",
        "fine-hidden-above-4096",
        *members("wide"),
        "batch-of-many-experts",
        "input-norm-beside-epsilon",
        "groups-mask-logits",
        "float32-input",
        "bfloat16-input",
        "float16-input",
    ),
    focus=_EXACT_AT_PUBLISHED_SIZES,
    needs=lambda capabilities: _no_logits(capabilities),
)
def match(trial: Trial) -> Failure | None:
    """The logits returned are x W^T + x d^T + b, up to rounding at the permitted precision."""
    if trial.verdict.answer.logits is None:
        return Failure(
            stage="logits",
            summary=f"logits=None, but capabilities say logits={trial.capabilities.logits!r}",
        )
    return first_failure(trial.verdict, "logits")


def no_wide_gate(capabilities: Capabilities) -> str | None:
    """Return why clauses on a float32 gate do not apply, where none is claimed."""
    if any("float32" in claim.gate_dtype for claim in capabilities.claims):
        return None
    return "nothing claimed has gate_dtype='float32'"


def _no_logits(capabilities: Capabilities) -> str | None:
    return "the capabilities have logits='none'" if capabilities.logits == "none" else None


@clause(
    "logits.lora-delta",
    "MUST",
    why="A router that drops or misplaces the adapter's delta on the gate trains one router "
    "and runs another.",
    rules=("LOG-1", "LOG-2"),
    bugs=("M04",),
    narrow={"gate_delta": (True,)},
    events=("delta-decides", "fine-delta"),
    focus=Focus(recipes=("table", "lattice", "normal")),
)
def lora_delta(trial: Trial) -> Failure | None:
    """A LoRA delta on the gate enters the logits, and so the selection and the weights."""
    return first_failure(trial.verdict, "logits", "selection", "weights")


@clause(
    "logits.float32-gate",
    "MUST",
    why="Models keep the gate, or its logits, in float32 since near ties are decided there; a "
    "cast along with the rest of a 16-bit model moves tokens to other experts, without an error.",
    rules=("LOG-8", "LOG-9"),
    bugs=("M10", "M12", "M13"),
    narrow={"gate_dtype": ("float32",)},
    needs=lambda capabilities: no_wide_gate(capabilities),
    promise="gate_dtype",
    events=(
        "fine-gate-beside-16-bits",
        "fine-linear-bias-beside-16-bits",
        "fine-delta-beside-16-bits",
        "wide-gate-shows-in-weights",
        *members("fine-gate-at"),
    ),
    focus=Focus(offers={"dtype": lambda offered: [each for each in offered if each != "float32"]}),
)
def float32_gate(trial: Trial) -> Failure | None:
    """A gate, or given logits, in float32 are not rounded to the 16 bits of the hidden states."""
    return first_failure(trial.verdict, "logits", "selection", "weights")


@clause(
    "logits.gate-bias",
    "MUST",
    why="The gate's linear bias belongs to the logits; fused paths that take only a weight "
    "matrix forget it.",
    rules=("LOG-1", "LOG-3"),
    bugs=("M04",),
    narrow={"gate_bias": (True,)},
    events=("gate-bias-decides", "fine-gate-bias"),
    focus=Focus(recipes=("table", "lattice", "normal")),
)
def gate_bias(trial: Trial) -> Failure | None:
    """The linear bias of the gate enters the logits, and so the selection and the weights."""
    return first_failure(trial.verdict, "logits", "selection", "weights")
