"""What the tests repeat: a few times in ``tox``, many times every night (``tox -e nightly``)."""

from __future__ import annotations

import os
from typing import TypeVar

Much = TypeVar("Much")


SERIES = 4
"""The batches of a series, and the members of a large family of events, that are called where
others call all of them."""


def nightly(part: Much, whole: Much) -> Much:
    """Return what ``tox`` has time for, or all of it where MOE_ROUTING_TESTS says nightly."""
    return whole if os.environ.get("MOE_ROUTING_TESTS") == "nightly" else part
