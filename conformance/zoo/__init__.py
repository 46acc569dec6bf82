"""The zoo: routers made wrong in exactly one way, and routers that differ only as they may.

The first must all be caught and the second must all pass: together they are the proof of
the suite (docs/zoo.md). Importing this package registers both.
"""

from moe_routing.conformance.zoo import honest, mutants
from moe_routing.conformance.zoo.residents import (
    HONEST,
    MUTANTS,
    Honest,
    Mutant,
    NoSuchResident,
    select_residents,
)

__all__ = [
    "HONEST",
    "MUTANTS",
    "Honest",
    "Mutant",
    "NoSuchResident",
    "honest",
    "mutants",
    "select_residents",
]
