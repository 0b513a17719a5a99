"""The ingress against an aiohttp handler with `send_and_wait`: requests per CPU-second, latencies of the answer."""

import sys
from dataclasses import dataclass, field

from bench import http_load, workload
from bench.http_load import Outcome, closed, endless, paced
from bench.processes import Child
from bench.results import Section
from bench.stack import Stack, listening, stack, wait_ready, wait_until

_CONNECTIONS = (1, 64, 512)
_SINGLE = "ingress, single events"
_PEER = "aiohttp with send_and_wait, single events"
_ARRAY = 100
_TURNS = 3
_SHARE = 0.7  # of the maximum rate


async def measure(*, quick: bool) -> Section:
    """Single events at each number of connections, ours and the peer in turn; arrays; NDJSON; two processes."""
    section = Section("ingress")
    duration_s = 3.0 if quick else 10.0
    bodies = [event.body for event in workload.events(20_000)]
    singles = [http_load.request(body) for body in bodies]
    async with stack() as made:
        ours = made.start_command("ingress")
        port = made.settings.ingress_port
        await wait_ready(ours, port)
        peer, peer_port = await _start_peer(made)
        await _singles(section, [(_SINGLE, ours, port), (_PEER, peer, peer_port)], singles, duration_s)
        await _paced(section, port, singles, duration_s)
        await _several(section, ours, port, bodies, duration_s)
        await ours.stop()
        two = made.start_command("ingress", ingress_processes=2)
        await wait_ready(two, port)
        total = _Total()
        await total.measure(two, port, singles, 64, duration_s)
        _add(section, "ingress, two processes, single events, 64 connections", total)
    return section


async def _start_peer(made: Stack) -> tuple[Child, int]:
    port = made.free_port()
    arguments = (made.bootstrap, str(port))
    child = made.start("aiohttp", sys.executable, "-m", "bench.peers.aiohttp_handler", *arguments)
    await wait_until(lambda: listening(port), child, f"port {port}")
    return child, port


async def _singles(
    section: Section, servers: list[tuple[str, Child, int]], requests: list[bytes], duration_s: float
) -> None:
    """Measure the servers in turns, several times, so that other load on the machine affects all of them."""
    for connections in _CONNECTIONS:
        totals = {what: _Total() for what, _, _ in servers}
        for _, _, port in servers:
            await closed(port, endless(requests), connections, 1.0)  # warm up
        for _ in range(_TURNS):
            for what, child, port in servers:
                await totals[what].measure(child, port, requests, connections, duration_s / _TURNS)
        for what, total in totals.items():
            _add(section, f"{what}, {connections} connections", total)
        ratio = totals[_SINGLE].per_cpu_s / totals[_PEER].per_cpu_s
        target = {"target": 1.8} if connections == 64 else {}
        section.add(f"ingress ÷ aiohttp with send_and_wait, {connections} connections", ratio, "×", **target)


@dataclass
class _Total:
    """What came of all turns of a server, and what they cost it."""

    outcome: Outcome = field(default_factory=Outcome)
    cpu_s: float = 0.0

    @property
    def per_cpu_s(self) -> float:
        """Answered requests per CPU-second."""
        return len(self.outcome.latencies_s) / self.cpu_s

    async def measure(
        self, child: Child, port: int, requests: list[bytes], connections: int, duration_s: float
    ) -> None:
        """One turn more."""
        began_cpu_s = child.cpu_s()
        outcome = await closed(port, endless(requests), connections, duration_s)
        self.cpu_s += child.cpu_s() - began_cpu_s
        self.outcome.latencies_s += outcome.latencies_s
        self.outcome.refused += outcome.refused
        self.outcome.duration_s += outcome.duration_s


def _add(section: Section, label: str, total: _Total) -> None:
    outcome = total.outcome
    section.add(label, total.per_cpu_s, "requests per CPU-second", note=_refused(outcome))
    section.add(f"{label}: wall rate", len(outcome.latencies_s) / outcome.duration_s, "requests/s")
    for percent in (50, 99, 99.9):
        section.add(f"{label}: p{percent:g}", outcome.percentile_ms(percent), "ms")
    section.series[label] = [outcome.percentile_ms(percent) for percent in (50, 90, 99, 99.9)]


async def _paced(section: Section, port: int, requests: list[bytes], duration_s: float) -> None:
    outcome = await closed(port, endless(requests), 64, duration_s)
    maximum = len(outcome.latencies_s) / outcome.duration_s
    outcome = await paced(port, endless(requests), 64, _SHARE * maximum, duration_s)
    label = f"acknowledgement, 64 connections at {_SHARE:.0%} of the maximum rate ({_SHARE * maximum:,.0f}/s)"
    section.add(f"{label}: p50", outcome.percentile_ms(50), "ms")
    section.add(f"{label}: p99", outcome.percentile_ms(99), "ms", target=15, sense="at_most", note=_refused(outcome))


async def _several(section: Section, child: Child, port: int, bodies: list[bytes], duration_s: float) -> None:
    groups = [bodies[at : at + _ARRAY] for at in range(0, len(bodies), _ARRAY)]
    forms = {
        f"arrays of {_ARRAY}": ([http_load.request(b"[" + b",".join(group) + b"]") for group in groups], 60_000.0),
        f"NDJSON of {_ARRAY}": (
            [http_load.request(b"\n".join(group), "application/x-ndjson") for group in groups],
            None,
        ),
    }
    for form, (requests, target) in forms.items():
        cpu_s = child.cpu_s()
        outcome = await closed(port, endless(requests), 16, duration_s)
        events = len(outcome.latencies_s) * _ARRAY
        label = f"ingress, {form}, 16 connections"
        cpu_s = child.cpu_s() - cpu_s
        section.add(label, events / cpu_s, "events per CPU-second", target=target, note=_refused(outcome))
        section.add(f"{label}: wall rate", events / outcome.duration_s, "events/s")
        section.add(f"{label}: p99", outcome.percentile_ms(99), "ms")


def _refused(outcome: Outcome) -> str:
    return f"{outcome.refused} refused" if outcome.refused else ""
