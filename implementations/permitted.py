"""Permitted values: what an axis of a claim lists, checked, with the fix for a bad one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from moe_routing.reference.checks import is_number, require_count, require_kind, shown


class Closed:
    """A value whose fields say all there is to say: it cannot be subclassed."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for base in cls.__bases__:
            if base is not Closed and issubclass(base, Closed):
                raise TypeError(
                    f"Cannot subclass {base.__name__} as {cls.__name__}: calls are drawn from its "
                    f"fields alone, so that what a method adds goes unread; make a {base.__name__} "
                    f"with {base.__name__}(...)"
                )


class AnyValue:
    """Every value that the specification permits."""

    def __contains__(self, value: object) -> bool:
        return True

    def __repr__(self) -> str:
        return "ANY"

    def __reduce__(self) -> str:
        return "ANY"  # claims are pickled between processes, and ANY stays a singleton


ANY: Final = AnyValue()
"""Claims every value of an axis."""


class PositiveValue(AnyValue):
    """Every number above 0."""

    def __contains__(self, value: object) -> bool:
        return is_number(value) and value > 0

    def __repr__(self) -> str:
        return "POSITIVE"

    def __reduce__(self) -> str:
        return "POSITIVE"


POSITIVE: Final = PositiveValue()
"""Claims every number above 0: a kernel that takes 0 for unset, or has no sign, claims no other."""

_Listed = TypeVar("_Listed")


def listed(permitted: _Listed | AnyValue) -> _Listed | None:
    """Return the values that an axis lists, or None where it permits every one."""
    return None if isinstance(permitted, AnyValue) else permitted


def check_values(
    name: str,
    permitted: Any,
    check: Callable[[Any], None],
    example: str,
    kinds: tuple[type, ...] = (tuple,),
) -> None:
    """Raise ``ValueError`` unless ``permitted`` is one of ``kinds``, and passes ``check``.

    ``check`` raises it for a value that ``name`` cannot list; ``example`` is what to write
    where a value given alone is such a one.
    """
    if isinstance(permitted, AnyValue) and type(permitted) in kinds:
        return
    if isinstance(permitted, AnyValue) or not isinstance(permitted, kinds):
        raise ValueError(
            f"Expected {name} to be a tuple of permitted values but got {shown(permitted)}: "
            f"write {_fix(permitted, check, example)}"
        )
    if not permitted:
        raise ValueError(f"Expected {name} to permit something but got {permitted!r}")
    check(permitted)


def one_of(name: str, known: tuple[Any, ...]) -> Callable[[Any], None]:
    """Return what checks that ``name`` lists known values alone."""

    def check(values: Any) -> None:
        if unknown := [value for value in values if value not in known]:
            raise ValueError(
                f"Expected {name} to list only {', '.join(map(repr, known))} "
                f"but got {shown(unknown[0])}"
            )

    return check


def counts(name: str) -> Callable[[Any], None]:
    """Return what checks that ``name`` lists numbers of 1 or more."""

    def check(values: Any) -> None:
        for each in values if isinstance(values, tuple) else (values.start, values.step):
            require_count(f"each value of {name}", each, at_least=1)

    return check


def parts(name: str, *kinds: type) -> Callable[[Any], None]:
    """Return what checks that ``name`` lists None and values of some kinds alone."""

    def check(values: Any) -> None:
        for each in values:
            if not isinstance(each, kinds[1:]):
                require_kind(f"each value of {name}", each, kinds[0])

    return check


def _fix(permitted: Any, check: Callable[[Any], None], example: str) -> str:
    """Return the tuple that ``permitted`` stands for, or the example if that is none."""
    several = isinstance(permitted, (list, set, frozenset))
    values = tuple(permitted) if several else (permitted,)
    try:
        check(values)
    except ValueError:
        return example
    return repr(values) if values else example
