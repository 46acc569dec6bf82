"""One call of a backend: made, and watched for the inputs and modes that it changes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.memory import HasArrays
from moe_routing.conformance.trial import floatmode
from moe_routing.conformance.trial.boundary import to_numpy
from moe_routing.conformance.trial.noted import noted
from moe_routing.implementations import Adapter, BackendLost, BackendMissing, Unsupported, traces
from moe_routing.implementations.tensors import Watched, watching_tensors

_LARGE = 2**16  # the bytes from which copying them costs more than the steps of NumPy
_MOST = 290  # the letters of a message that fits on four lines of a terminal


class Raised(Exception):
    """The backend raised on a call that it claims; ``__cause__`` is what it raised.

    ``case`` is that of the call, ``where`` the lines of the backend that the exception passed.
    """

    def __init__(self, words: str, error: BaseException, case: AnyCase) -> None:
        place = traces.place(error)
        super().__init__(f"{words[: _MOST - len(place)]}{place}")
        self.case, self.where = case, traces.where(error)


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """The result of one call: the answer, and the names of what the backend changed."""

    native: Any
    changed: list[str]
    modes: list[str]


def called(
    adapter: Adapter,
    method: str,
    case: AnyCase,
    inputs: HasArrays,
) -> Call:
    """Call the backend with ``inputs``, those of ``case`` in memory of their own.

    Its tensors, its inputs and the floating-point mode are watched.
    """
    mode = floatmode.current()
    try:
        with watching_tensors() as watched, noted(case):
            native = getattr(adapter, method)(*case.arguments(inputs))
    except (BackendLost, BackendMissing, KeyboardInterrupt):
        raise
    except Unsupported as refusal:
        words = f"raised Unsupported on a call that it claims: {refusal}"
        raise Raised(words, refusal, case) from refusal
    except BaseException as error:  # an exit, too, is a result that a clause has to report
        raise Raised(f"raised {in_words(error)}", error, case) from error
    finally:
        modes = floatmode.restore(mode)
    return Call(native=native, changed=_changed(watched, inputs.arrays(), case), modes=modes)


def in_words(error: BaseException) -> str:
    """Return an exception in one line, even if reading its message raises."""
    try:
        words = " ".join(str(error).split())
    except Exception as worse:
        words = f"its message cannot be read ({type(worse).__name__})"
    return f"{type(error).__name__}: {words or 'no message'}"[:280]


def _changed(
    watched: list[Watched], after: dict[str, npt.NDArray[Any]], case: AnyCase
) -> list[str]:
    before = case.inputs.arrays()
    names = [
        each.name
        for each in watched
        if not _same(_seen(each.name, each.tensor), before.get(each.name, each.array))
    ]
    names += [
        f"{each.name} (the memory between its elements)"
        for each in watched
        if each.memory is not None
        and each.name not in names
        and not _same(_seen(each.name, each.memory), _seen(each.name, each.before))
    ]
    names += [name for name in before if not _same(after[name], before[name])]
    return list(dict.fromkeys(names))


_seen = partial(to_numpy, copy=False)


def _same(now: npt.NDArray[Any], before: npt.NDArray[Any]) -> bool:
    alike = now.dtype == before.dtype and now.shape == before.shape
    if alike and _bits_alike(now, before):
        return True
    return bool(np.array_equal(now, before, equal_nan=now.dtype.kind == "f"))


def _bits_alike(now: npt.NDArray[Any], before: npt.NDArray[Any]) -> bool:
    """Compare arrays of one shape and type bit by bit; large ones without copies of them."""
    if now.nbytes <= _LARGE or now.itemsize not in (1, 2, 4, 8):
        return now.tobytes() == before.tobytes()
    bits = f"u{now.itemsize}"
    return bool((now.view(bits) == before.view(bits)).all())
