"""What a run shows of a mutant, made small, is within its claims, however narrow."""

from __future__ import annotations

from itertools import islice

import pytest
from narrow_claims import NARROW
from nightly import nightly
from shrunk_mutants import ROWS_ONLY, shrunk_mutants

MANY, FEW = nightly(7, 15), nightly(1, 2)


def test_a_mutant_of_inputs_in_rows_is_given_and_shown_nothing_else() -> None:
    found = list(islice(shrunk_mutants(ROWS_ONLY, start=3, step=29), MANY))
    assert len(found) == MANY
    for each in found:
        assert each.inside, f"{each.mutant} {each.clause}: {each.case.inputs}"
        assert not each.strided, f"{each.mutant} {each.clause}: given {each.strided} with strides"


@pytest.mark.parametrize("name", NARROW)
def test_what_is_shown_of_a_mutant_is_within_its_claims(name: str) -> None:
    found = list(islice(shrunk_mutants(NARROW[name], start=5, step=61), FEW))
    assert found
    for each in found:
        assert each.inside, f"{each.mutant} {each.clause}: {each.case.config} {each.case.inputs}"
