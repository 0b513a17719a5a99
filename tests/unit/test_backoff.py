"""Pauses between retries."""

import pytest

from runtime.platform.backoff import Backoff


def test_pauses_double_up_to_the_bound_and_start_again_after_a_reset() -> None:
    """Without jitter, pauses are exact powers of two times the shortest, bounded by the longest."""
    backoff = Backoff(0.1, 0.5, jitter=0)
    assert [backoff.next_s() for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    backoff.reset()
    assert backoff.next_s() == 0.1


def test_jitter_stays_within_its_fraction() -> None:
    """Pauses vary, by no more than the jitter."""
    pauses_s = [Backoff(1, 1, jitter=0.2).next_s() for _ in range(200)]
    assert min(pauses_s) >= 0.8
    assert max(pauses_s) <= 1.2
    assert max(pauses_s) - min(pauses_s) > 0.1
    assert Backoff(1, 1, jitter=0).next_s() == pytest.approx(1)
