"""One test of many things, which reports every one that fails.

A rule of a line or two, held for hundreds of files or clauses: as so many items of pytest it
costs more to report than to hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pytest

Thing = TypeVar("Thing")


Things = Mapping[Any, Thing]


def for_each(
    things: Things[Thing] | Callable[[], Things[Thing]],
) -> Callable[[Callable[[Thing], None]], Any]:
    """Make a test of one thing the test of all ``things``; each that fails is named by its key.

    Things that cost time to find are found when the test runs: pass what returns them.
    """

    def made(check: Callable[[Thing], None]) -> Callable[[], None]:
        def test() -> None:
            every = things() if callable(things) else things
            assert every, "there is nothing to test"
            failed = {name: error for name, it in every.items() if (error := _error(check, it))}
            _report(failed, len(every))

        test.__name__, test.__qualname__ = check.__name__, check.__qualname__
        test.__doc__, test.__module__ = check.__doc__, check.__module__
        return test

    return made


def _error(check: Callable[[Thing], None], thing: Thing) -> Exception | None:
    """Return what a test of one thing raises, whatever it is: the tests of others go on."""
    try:
        check(thing)
    except Exception as error:
        return error
    return None


def _report(failed: Mapping[Any, Exception], of: int) -> None:
    """Fail with every failure, a line each; errors come with their tracebacks."""
    if not failed:
        return
    if all(isinstance(error, AssertionError) for error in failed.values()):
        said = "\n".join(f"{name}: {error}" for name, error in failed.items())
        pytest.fail(f"{len(failed)} of {of} fail:\n{said}", pytrace=False)
    for name, error in failed.items():
        error.add_note(f"in the test of {name}")
    raise ExceptionGroup(f"{len(failed)} of {of} fail", [*failed.values()])
