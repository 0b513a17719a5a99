"""The points at which the fault tests kill a process exist."""

import pytest

from tests.faults.points import POINTS, POINTS_OF_GROWTH, resolve


@pytest.mark.parametrize("method", sorted({point.method for point in (POINTS | POINTS_OF_GROWTH).values()}))
def test_every_fault_point_names_a_method(method):
    """Each point names a method that exists: a renamed one would keep every fault test from starting."""
    owner, attribute = resolve(method)
    assert callable(getattr(owner, attribute))
