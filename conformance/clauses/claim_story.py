"""The story of a claim in words: the call, the claim at stake, and the fix."""

from __future__ import annotations

from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Unsupported


def claimed(trial: Trial) -> tuple[str, ...]:
    """Return the lines on a call that is claimed and was not answered."""
    case, capabilities = trial.case, trial.capabilities
    claim = capabilities.require(case.config, case.inputs)
    return (
        f"claimed by {_name(capabilities.claims.index(claim), claim.name)}",
        "fix     answer it, or narrow the claim to what the backend does",
    )


def not_refused(trial: Trial) -> Failure | None:
    """Return the failure of an unclaimed call that was answered, or refused in other words."""
    try:
        said = f"was answered ({type(trial.native).__name__})"
    except Raised as error:
        if isinstance(error.__cause__, Unsupported):
            return None
        said = str(error)
    return Failure(
        stage="layout",
        summary=f"{_why_unclaimed(trial)}: {said}, but should raise Unsupported",
        details=_unclaimed(trial),
    )


def _why_unclaimed(trial: Trial) -> str:
    try:
        trial.capabilities.require(trial.case.config, trial.case.inputs)
    except Unsupported as error:
        return str(error)
    return "not claimed"


def _unclaimed(trial: Trial) -> tuple[str, ...]:
    case, capabilities = trial.case, trial.capabilities
    claim, refusals = capabilities.nearest(case.config, case.inputs)
    lines = []
    if claim is not None and refusals:
        name = _name(capabilities.claims.index(claim), claim.name)
        axes = dict.fromkeys(refusal.partition("=")[0] for refusal in refusals)
        permitted = ", ".join(f"{axis}={getattr(claim, axis)!r}" for axis in axes)
        lines.append(f"nearest {name}, which has {permitted}")
    lines.append(
        "fix     refuse it, as self.capabilities().require(config, inputs) does, or claim it"
    )
    return tuple(lines)


def _name(place: int, name: str) -> str:
    return f"claim {place + 1}" + (f", {name!r}" if name else "")
