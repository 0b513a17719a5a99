"""The ingress compared with the same in aiohttp and in Go: requests per CPU-second, response latency.

The peer in Go (net/http, franz-go) is measured where it can be built, and must give the same answers.
"""

import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import click

from bench import http_load, workload
from bench.benchmark_stack import BenchmarkStack, benchmark_stack, listening, wait_ready, wait_until
from bench.http_load import LoadResult, closed, endless, paced
from bench.measured_process import MeasuredProcess
from bench.native_peers import NoToolchainError, go_program
from bench.results import Section

_CONNECTIONS = (1, 64, 512)
_ARRAY = 100
_RUNS = 3
_SHARE = 0.7  # of the maximum rate


#: A body of each kind; the answer to it has this status.
_ANSWERS = {b'{"IMEI":"350612075195931"}': 200, b"{}": 200, b'{"IMEI":': 400, b"7": 400, b'{"IMEI":"\xff"}': 400}


class _Server(NamedTuple):
    """A server of events; `least` are the targets of the ingress ÷ it, by number of connections."""

    name: str
    child: MeasuredProcess
    port: int
    least: Mapping[int, float]


async def measure(*, quick: bool) -> Section:
    """Measure single events by number of connections, alternating with the peers; arrays; NDJSON; two processes."""
    section = Section("ingress")
    duration_s = 3.0 if quick else 10.0
    bodies = [event.body for event in workload.events(20_000)]
    singles = [http_load.request(body) for body in bodies]
    async with benchmark_stack() as stack:
        ours = stack.start_command("ingress")
        port = stack.settings.ingress_port
        await wait_ready(ours, port)
        peers = [await _start_aiohttp(stack), *await _start_go(stack)]
        await _singles(section, _Server("ingress", ours, port, {}), peers, singles, duration_s)
        for peer in peers:
            await peer.child.stop()
        await _paced(section, port, singles, duration_s)
        await _several(section, ours, port, bodies, duration_s)
        await ours.stop()
        two = stack.start_command("ingress", ingress_processes=2)
        await wait_ready(two, port)
        total = _Total()
        await total.measure(two, port, singles, 64, duration_s)
        _add(section, "ingress, two processes, single events, 64 connections", total)
    return section


async def _start_aiohttp(stack: BenchmarkStack) -> _Server:
    port = stack.free_port()
    arguments = (stack.bootstrap, str(port))
    child = stack.start("aiohttp", sys.executable, "-m", "bench.peers.aiohttp_handler", *arguments)
    await wait_until(lambda: listening(port), child, f"port {port}")
    return _Server("aiohttp with send_and_wait", child, port, {64: 1.8})


async def _start_go(stack: BenchmarkStack) -> list[_Server]:
    """Start the peer in Go; none, and a line on standard error, if it cannot be built."""
    try:
        program = go_program("ingress")
    except NoToolchainError as problem:
        click.echo(f"not measured: {problem}", err=True)
        return []
    port = stack.free_port()
    child = stack.start("go", *program, stack.bootstrap, str(port))
    await wait_ready(child, port)
    for server_port in (stack.settings.ingress_port, port):
        found = {body: _status(server_port, body) for body in _ANSWERS}
        if found != _ANSWERS:
            raise RuntimeError(f"the answers on port {server_port} are {found} instead of {_ANSWERS}")
    return [_Server("Go with net/http and franz-go", child, port, {64: 1.05, 512: 1.05})]


def _status(port: int, body: bytes) -> int:
    url, headers = f"http://127.0.0.1:{port}/api/events", {"Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as refused:
        return refused.code


async def _singles(
    section: Section, ours: _Server, peers: Sequence[_Server], requests: list[bytes], duration_s: float
) -> None:
    """Alternate between the servers several times, so that disturbances affect all of them."""
    servers = [ours, *peers]
    for connections in _CONNECTIONS:
        totals = {server.name: _Total() for server in servers}
        for server in servers:
            await closed(server.port, endless(requests), connections, 1.0)  # warm up
        for _ in range(_RUNS):
            for server in servers:
                await totals[server.name].measure(server.child, server.port, requests, connections, duration_s / _RUNS)
        for name, total in totals.items():
            _add(section, f"{name}, single events, {connections} connections", total)
        for peer in peers:
            ratio = totals[ours.name].per_cpu_s / totals[peer.name].per_cpu_s
            label = f"ingress ÷ {peer.name}, {connections} connections"
            section.add(label, ratio, "×", target=peer.least.get(connections))


@dataclass
class _Total:
    """The results of all runs of a server, and their CPU time."""

    outcome: LoadResult = field(default_factory=LoadResult)
    cpu_s: float = 0.0

    @property
    def per_cpu_s(self) -> float:
        """Answered requests per CPU-second."""
        return len(self.outcome.latencies_s) / self.cpu_s

    async def measure(
        self, child: MeasuredProcess, port: int, requests: list[bytes], connections: int, duration_s: float
    ) -> None:
        """Add one run."""
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


async def _several(section: Section, child: MeasuredProcess, port: int, bodies: list[bytes], duration_s: float) -> None:
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


def _refused(outcome: LoadResult) -> str:
    return f"{outcome.refused} refused" if outcome.refused else ""
