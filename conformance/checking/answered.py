"""The answer of an adapter to one routing case, without a clause: for comparing adapters."""

from __future__ import annotations

from dataclasses import dataclass

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.checking.status import Status
from moe_routing.conformance.judge import Answer
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Adapter, BackendLost


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """What came of a call: the converted answer, or else the status and a line on why not."""

    answer: Answer | None = None
    status: Status = "pass"
    message: str = ""


def answer_case(adapter: Adapter, case: Case) -> Answered:
    """Call ``route`` of the adapter with a case. Errors: ``BackendMissing``."""
    try:
        return Answered(answer=Trial(adapter, case).received.answer)
    except BackendLost as error:
        return Answered(status=error.status, message=str(error))
    except Raised as error:
        return Answered(status="error", message=str(error))
    except Malformed as error:
        return Answered(status="error", message=f"malformed answer: {error}")
