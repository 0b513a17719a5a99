"""The delays of a loop that retries."""

import itertools

from runtime.platform.backoff import Backoff


def test_delays_double_up_to_the_maximum_and_start_again_after_a_reset() -> None:
    """Without jitter the delays are exact."""
    backoff = Backoff(0.2, 1.0, jitter=0)
    assert [backoff.next_s() for _ in range(5)] == [0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.next_s() == 0.2


def test_jitter_spreads_each_delay_within_its_share() -> None:
    """Two clients that fail together do not retry together; no delay leaves the range."""
    backoff = Backoff(1.0, 1.0, jitter=0.2)
    delays = [backoff.next_s() for _ in range(1_000)]
    assert all(0.8 <= delay <= 1.2 for delay in delays)
    assert len(set(itertools.islice(delays, 100))) > 90
