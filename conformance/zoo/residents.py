"""The registry of the zoo: what a mutant is, what an honest variant is, and how one is added."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from moe_routing.conformance.zoo.families import FAMILIES
from moe_routing.conformance.zoo.router.balancer import StagedBalancer
from moe_routing.conformance.zoo.router.composer import StagedComposer
from moe_routing.conformance.zoo.router.differentiator import StagedDifferentiator
from moe_routing.conformance.zoo.router.dropper import StagedDropper
from moe_routing.conformance.zoo.router.learner import StagedLearner
from moe_routing.conformance.zoo.router.padder import StagedPadder
from moe_routing.conformance.zoo.router.permuter import StagedPermuter
from moe_routing.conformance.zoo.router.ranks import StagedRanks
from moe_routing.conformance.zoo.router.replayer import StagedReplayer
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.conformance.zoo.router.runner import StagedRunner
from moe_routing.conformance.zoo.router.sharder import StagedSharder
from moe_routing.conformance.zoo.router.work import Stage, Work
from moe_routing.implementations import Capabilities, Numerics

WHOLE = Capabilities()
"""What a resident of the zoo claims by default: the whole spec, no logits."""

ROUTED = Capabilities(logits="routed")
"""The whole spec, with the logits that were routed."""


Staged = (
    StagedRouter
    | StagedPermuter
    | StagedDifferentiator
    | StagedRunner
    | StagedLearner
    | StagedReplayer
    | StagedSharder
    | StagedRanks
    | StagedDropper
    | StagedPadder
    | StagedBalancer
    | StagedComposer
)
"""A resident as an adapter."""

Makes = Callable[[str, Mapping[str, Any], Capabilities], Staged]
"""Makes an adapter of a name, of the stages that are its own, and of claims."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A right router with exactly one bug, named after a bug that really shipped.

    ``family`` is one of ``FAMILIES``, ``real`` is where it happened (project, and issue,
    pull request or commit), ``harm`` what it did to people. ``stages`` are those that it
    replaces, of a router or of what else it ``makes``. ``needs`` names what the bug cannot show
    without, such as more than 256 experts: it bounds how small a failing case can get.
    """

    name: str
    family: str
    real: str
    harm: str
    stages: Mapping[str, Any]
    claims: Capabilities = WHOLE
    needs: str = ""
    makes: Makes = StagedRouter

    def adapter(self) -> Staged:
        """Return a new router, permuter or runner of experts, with an empty memory."""
        return self.makes(self.name, self.stages, self.claims)


@dataclass(frozen=True, kw_only=True)
class Honest:
    """A right router that differs from the usual ones only as the specification permits.

    ``why`` is how it differs and what permits that. ``declares`` are numerics that it has
    to declare: without them it must fail.
    """

    name: str
    why: str
    stages: Mapping[str, Any]
    claims: Capabilities = WHOLE
    declares: Numerics = field(default_factory=Numerics)
    makes: Makes = StagedRouter

    def adapter(self, *, declared: bool = True) -> Staged:
        """Return it with its numerics declared, or undeclared so that it must fail."""
        plain = not declared or self.declares == self.claims.numerics
        claims = self.claims if plain else replace(self.claims, numerics=self.declares)
        return self.makes(self.name, self.stages, claims)


MUTANTS: dict[str, Mutant] = {}
"""Every mutant by name, in the order of the chapters."""

HONEST: dict[str, Honest] = {}
"""Every honest variant by name."""


def mutant(name: str, family: str, *stages: str, real: str, **parts: Any) -> Callable[..., Any]:
    """Register the decorated stage as a mutant; its docstring is the harm that it did.

    ``stages`` names what it replaces; where there are several, the function is called with
    the name of the stage as well. Errors: ``ValueError`` for a repeated name, an unknown
    family, or no docstring.
    """

    def register(stage: Callable[..., Any]) -> Callable[..., Any]:
        harm = " ".join((stage.__doc__ or "").split())
        wrong = {
            "the name is taken": name in {**MUTANTS, **HONEST},
            f"{family!r} is no family of conformance/zoo/families.py": family not in FAMILIES,
            "it has no docstring, which says what it did": not harm,
            "real is empty, and says where it happened": not real,
        }
        _refuse(f"mutant {name!r}", wrong)
        MUTANTS[name] = Mutant(
            name=name, family=family, real=real, harm=harm, stages=_bound(stage, stages), **parts
        )
        return stage

    return register


def honest(name: str, *stages: str, **parts: Any) -> Callable[..., Any]:
    """Register the decorated stage as an honest variant; its docstring is why it is right."""

    def register(stage: Callable[..., Any]) -> Callable[..., Any]:
        why = " ".join((stage.__doc__ or "").split())
        wrong = {
            "the name is taken": name in {**MUTANTS, **HONEST},
            "it has no docstring, which says why it is right": not why,
        }
        _refuse(f"variant {name!r}", wrong)
        HONEST[name] = Honest(name=name, why=why, stages=_bound(stage, stages), **parts)
        return stage

    return register


def _refuse(what: str, wrong: Mapping[str, bool]) -> None:
    """Raise ``ValueError`` with the first of the reasons that holds, if any does."""
    for reason, holds in wrong.items():
        if holds:
            raise ValueError(f"Cannot register {what}: {reason}")


def _bound(stage: Callable[..., Any], names: tuple[str, ...]) -> dict[str, Stage]:
    if len(names) == 1:
        return {names[0]: stage}
    return {name: partial(_named, stage, name) for name in names}


def _named(stage: Callable[..., Any], name: str, work: Work) -> Any:
    return stage(work, name)


_KINDS = {None: "mutant or variant", "mutants": "mutant", "variants": "variant"}


class NoSuchResident(Exception):
    """No mutant or variant matches a glob; the message suggests the nearest names."""


def select_residents(globs: Sequence[str], only: str | None = None) -> list[str]:
    """Return the names that any of ``globs`` matches, or all names without globs.

    ``only`` is ``mutants``, ``variants`` or None for both. Errors: ``NoSuchResident``.
    """
    houses: dict[str, Sequence[str]] = {"mutants": [*MUTANTS], "variants": [*HONEST]}
    names = [name for kind, house in houses.items() if only in (None, kind) for name in house]
    wanted: set[str] = set()
    for glob in globs:
        found = fnmatch.filter(names, glob)
        if not found:
            near = difflib.get_close_matches(glob, names, n=3)
            hint = f": did you mean {', '.join(near)}?" if near else "."
            raise NoSuchResident(f"No {_KINDS[only]} matches {glob!r}{hint} docs/zoo.md lists all")
        wanted.update(found)
    return [name for name in names if not globs or name in wanted]
