"""A trial: one case put to one backend, and everything a clause may ask about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from moe_routing.conformance import floatmode
from moe_routing.conformance.boundary import Received, receive, to_numpy
from moe_routing.conformance.case import Case, SharedCase
from moe_routing.conformance.judge import Bounds, Verdict, judge
from moe_routing.implementations import Adapter, BackendMissing, Capabilities, Unsupported
from moe_routing.implementations.tensors import watching_tensors


class Raised(Exception):
    """The backend raised on a call that it claims; ``__cause__`` is what it raised."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One case for one adapter; the answer and the verdict are made when first asked for."""

    adapter: Adapter
    case: Case | SharedCase
    method: str = "route"

    @cached_property
    def capabilities(self) -> Capabilities:
        """The adapter's capabilities."""
        return self.adapter.capabilities()

    @cached_property
    def bounds(self) -> Bounds:
        """The reference and the bounds of the case."""
        return Bounds(self.case.config, self.case.inputs, self.capabilities.numerics)

    @cached_property
    def changed(self) -> list[str]:
        """The inputs that the backend changed, by name."""
        return self._call[1]

    @cached_property
    def modes(self) -> list[str]:
        """The floating-point modes that the backend changed, in words."""
        return self._call[2]

    @cached_property
    def native(self) -> Any:
        """The backend's own return value. Errors: ``Raised``."""
        return self._call[0]

    @cached_property
    def received(self) -> Received:
        """The answer, described and converted. Errors: ``Raised``, ``Malformed``."""
        return receive(self.native, self.case.config, self.case.inputs.num_tokens)

    @cached_property
    def verdict(self) -> Verdict:
        """The judge's verdict on the answer. Errors: as ``received``."""
        return self.judged_as(self.bounds)

    def judged_as(self, bounds: Bounds) -> Verdict:
        """Judge the answer by other bounds: those of a case that means the same."""
        return judge(bounds, self.received.answer, logits=self.capabilities.logits)

    def claims(self, case: Case) -> bool:
        """Tell whether the backend claims ``case``."""
        return self.capabilities.admits(case.config, case.inputs)

    def of(self, case: Case | SharedCase, method: str | None = None) -> Trial:
        """Return the trial of another case with the same backend."""
        return Trial(self.adapter, case, method or self.method)

    @cached_property
    def _call(self) -> tuple[Any, list[str], list[str]]:
        before = {name: array.copy() for name, array in self.case.inputs.arrays().items()}
        mode = floatmode.current()
        try:
            with watching_tensors() as watched:
                result = getattr(self.adapter, self.method)(self.case.config, self.case.inputs)
        except (BackendMissing, KeyboardInterrupt):
            raise
        except Unsupported as refusal:
            raise Raised(f"raised Unsupported on a call that it claims: {refusal}") from refusal
        except Exception as error:
            words = " ".join(str(error).split())
            raise Raised(f"raised {type(error).__name__}: {words}"[:300]) from error
        finally:
            modes = floatmode.restore(mode)
        changed = [
            each.name
            for each in watched
            if not _same(to_numpy(each.name, each.tensor), before.get(each.name, each.array))
        ]
        after = self.case.inputs.arrays()
        changed += [name for name in before if not _same(after[name], before[name])]
        return result, list(dict.fromkeys(changed)), modes


def _same(now: np.ndarray, before: np.ndarray) -> bool:
    return bool(np.array_equal(now, before, equal_nan=now.dtype.kind == "f"))
