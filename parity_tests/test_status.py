"""Statuses as a user sees them, and the tables of a trust-region run's ends as functions of facts."""

import itertools
import json
from typing import Any

import pytest
from backends import Backend

from bandhess_common.status import Status
from bandhess_common.stopping import SearchFacts, StepFacts, search_ends, step_ends


def test_a_status_shows_its_name(backend: Backend) -> None:
    """Printed, formatted and in a table; it stays the number of its code."""
    for status in backend.package.Status:
        assert str(status) == f"{status}" == status.name
        assert f"{status:>20}" == status.name.rjust(20)
        assert f"{status:d}" == str(int(status))
        assert status.name in repr(status)
        assert json.dumps({"status": status}) == json.dumps({"status": int(status)})
        assert backend.package.Status(int(status)) is status


def first(cases: list[tuple[Any, Status]]) -> Status | None:
    return next((status for holds, status in cases if holds), None)


@pytest.mark.parametrize(
    ("facts", "end"),
    [
        (SearchFacts(settled=True, proven=True, spent=False, lost=False), Status.CONVERGED),
        (SearchFacts(settled=True, proven=True, spent=True, lost=False), Status.CONVERGED),
        (SearchFacts(settled=True, proven=False, spent=False, lost=False), Status.PRECISION_FLOOR),
        (SearchFacts(settled=False, proven=True, spent=True, lost=False), Status.MAX_STEPS),
        (SearchFacts(settled=False, proven=True, spent=False, lost=True), Status.STALLED),
        (SearchFacts(settled=False, proven=True, spent=False, lost=False), None),
    ],
)
def test_ends_of_a_search(facts: SearchFacts, end: Status | None) -> None:
    assert first(search_ends(facts)) == end


def test_no_end_without_its_fact() -> None:
    """Over all facts: CONVERGED needs a proof, and a status of the steps the fact that it names."""
    for values in itertools.product([False, True], repeat=len(SearchFacts._fields)):
        facts = SearchFacts(*values)
        assert (first(search_ends(facts)) == Status.CONVERGED) == (facts.settled and facts.proven)
    names = {
        Status.NONFINITE: ("bad_start", "bad"),
        Status.BAND_TOO_NARROW: ("narrow",),
        Status.UNBOUNDED: ("falling",),
        Status.PRECISION_FLOOR: ("floor",),
        Status.STALLED: ("collapsed", "crept"),
    }
    for values in itertools.product([False, True], repeat=len(StepFacts._fields)):
        facts = StepFacts(*values)
        end = first(step_ends(facts))
        if end is None:
            assert not any(facts._replace(bad=False))
        else:
            assert any(getattr(facts, name) for name in names[end])
        assert (end == Status.NONFINITE) >= facts.bad_start
