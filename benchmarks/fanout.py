"""Fan-out: N subscribers in one room, P pushes/s through HTTP. `python -m benchmarks.fanout`, or `make bench`.

The fabric runs in its own processes. This process is the subscribers; another one pushes, through HTTP. Every
subscriber must receive every accepted push once; a sample of them reads each message, and all of the sample must have
the same order. The exit code is 1 if anything was lost, doubled or out of order.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import psutil

from benchmarks import publisher
from benchmarks.bare import bare_send_us
from benchmarks.crowd import Crowd, Sample
from benchmarks.fabric import BenchmarkError, Fabric
from benchmarks.front import NAMES, Front
from benchmarks.idle import push_latency
from benchmarks.report import Figures, medians, percentile, show
from zim.client import ZimError

_STALL_S = 10.0
_IDLE_PUSHES = 300
_MAX_SECONDS = 240  # the crowd sends no heartbeats, and a comet closes who is silent for 300 s


@dataclass(frozen=True)
class Options:
    """What to measure; see --help."""

    subscribers: int
    rate: float
    seconds: float
    size: int
    transport: str
    topology: Path | None
    comets: int
    publishers: int
    sample: int
    push_latency: bool
    bare: bool
    tls: bool
    front: str | None
    link_keys: bool = False


def run(options: Options) -> Figures:
    """One run against one fabric.

    Raises:
        ZimError: it could not be carried through.
    """
    bare_us = None
    if options.bare and not options.push_latency:
        bare_us = bare_send_us(options.subscribers, options.rate, options.size)
    with ExitStack() as stack:
        fabric = Fabric(options.topology, options.comets, is_tls=options.tls, link_keys=options.link_keys)
        stack.enter_context(fabric)
        addresses, tls = fabric.addresses(options.transport), fabric.tls
        fronts: list[psutil.Process] = []
        if options.front is not None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="zim-bench-"))
            front = stack.enter_context(Front(options.front, addresses[0], Path(folder)))
            addresses, tls, fronts = [front.address], front.tls, front.processes()
        # The first pushes of a fabric pay for its connections and imports.
        push_latency(fabric.http[0], addresses[0], options.transport, 20, tls)
        comets = [*fabric.comet_processes(), *fronts]
        figures = Figures(options.subscribers, options.comets, bare_send_cpu_us=bare_us)
        crowd = Crowd(addresses, options.transport, options.sample, tls=tls)
        try:
            before = _memory(comets)
            took_s = crowd.connect(options.subscribers)
            figures.connects_per_s = options.subscribers / took_s
            figures.memory_per_connection_kb = (_memory(comets) - before) / options.subscribers / 1000
            count = 2000 if options.push_latency else _IDLE_PUSHES
            idle_s = push_latency(fabric.http[0], addresses[0], options.transport, count, tls)
            figures.idle_push_p50_ms = percentile(idle_s, 0.5) * 1000
            figures.idle_push_p99_ms = percentile(idle_s, 0.99) * 1000
            if not options.push_latency:
                _load(options, fabric, crowd, comets, figures)
        finally:
            crowd.close()
    return figures


def _load(options: Options, fabric: Fabric, crowd: Crowd, comets: list[psutil.Process], figures: Figures) -> None:
    """Pushes and receives, and judges what came."""
    me = psutil.Process()
    cpu_before, own_before = _cpu_s(comets), _cpu_s([me])
    pushed, last_at = _push_and_receive(options, fabric.http, crowd)
    cpu_s, own_s = _cpu_s(comets) - cpu_before, _cpu_s([me]) - own_before
    wall_s = last_at - pushed.started_at
    figures.expected = pushed.accepted * options.subscribers
    figures.received = crowd.received
    figures.pushes_accepted = pushed.accepted
    figures.pushes_per_s = pushed.accepted / pushed.seconds
    figures.push_late_max_ms = pushed.late_s * 1000
    if pushed.http_s:
        figures.http_p50_ms = percentile(pushed.http_s, 0.5) * 1000
        figures.http_p99_ms = percentile(pushed.http_s, 0.99) * 1000
    if crowd.received:
        figures.messages_per_s = crowd.received / wall_s
        figures.comet_cpu_us_per_delivery = cpu_s / crowd.received * 1e6
        figures.generator_cpu_share = own_s / wall_s
    latencies_s = sorted(value for sample in crowd.samples for value in sample.latencies_s)
    if latencies_s:
        figures.latency_p50_ms = percentile(latencies_s, 0.5) * 1000
        figures.latency_p99_ms = percentile(latencies_s, 0.99) * 1000
        figures.latency_p999_ms = percentile(latencies_s, 0.999) * 1000
        figures.latency_max_ms = latencies_s[-1] * 1000
    if figures.pushes_per_s < 0.95 * options.rate:
        figures.notes.append(
            f"HTTP took {figures.pushes_per_s:,.0f} pushes/s where {options.rate:,.0f} were asked for; "
            "the latencies do not contain what a push waited for its turn"
        )
    figures.problems = [f"{count} pushes: {text}" for text, count in pushed.refused.items()]
    if crowd.lost:
        figures.problems.append(f"{len(crowd.lost)} subscribers were disconnected, the first: {crowd.lost[0]}")
    wrong = [counter.received for counter in crowd.counters if counter.received != pushed.accepted]
    if wrong:
        figures.problems.append(
            f"{len(wrong)} subscribers received {min(wrong)} to {max(wrong)} messages, not {pushed.accepted}"
        )
    figures.problems += judge_samples(crowd.samples)


def _push_and_receive(options: Options, http: list[str], crowd: Crowd) -> tuple[publisher.Pushed, float]:
    """Runs the publisher's process and reads until everything is here or nothing comes. Gives the last arrival, too."""
    arguments = [",".join(http), options.rate, options.seconds, options.size, options.publishers]
    command = [sys.executable, "-m", "benchmarks.publisher", *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        output: list[bytes] = []
        # A thread, because the answer may be longer than a pipe holds; it sleeps until there is one.
        reader = threading.Thread(target=lambda: output.append(process.communicate(b"go\n")[0]))
        reader.start()
        try:
            pushed: publisher.Pushed | None = None
            seen, last_at = 0, time.monotonic()
            while pushed is None or crowd.received < pushed.accepted * options.subscribers:
                crowd.poll(0.1)
                now = time.monotonic()
                if crowd.received > seen:
                    seen, last_at = crowd.received, now
                if pushed is None and not reader.is_alive():
                    if not output or not output[0]:
                        raise BenchmarkError(f"the publisher ended with {process.returncode}")
                    pushed = publisher.Pushed(**json.loads(output[0]))
                    ended_at = now
                elif pushed is not None and now - max(last_at, ended_at) > _STALL_S:
                    break
        finally:
            process.kill()
            reader.join()
    # What arrives now is too much.
    for _ in range(5):
        crowd.poll(0.1)
    return pushed, last_at


def judge_samples(samples: list[Sample]) -> list[str]:
    """What is wrong with the order in which the sample received: one sentence for each kind of fault."""
    problems = []
    doubled = sum(len(sample.numbers) != len(set(sample.numbers)) for sample in samples)
    if doubled:
        problems.append(f"{doubled} of the sample received messages twice")
    if any(sample.numbers != samples[0].numbers for sample in samples):
        problems.append("the sample did not receive the same messages in the same order")
    if not all(map(_keeps_order, samples)):
        problems.append("messages pushed one after the other over one connection arrived out of order")
    return problems


def _keeps_order(sample: Sample) -> bool:
    last: dict[int, int] = {}
    for number, connection in zip(sample.numbers, sample.connections, strict=True):
        if number < last.get(connection, number):
            return False
        last[connection] = number
    return True


def _memory(processes: list[psutil.Process]) -> int:
    return sum(process.memory_info().rss for process in processes)


def _cpu_s(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--subscribers", type=click.IntRange(1), default=1000, help="Clients, all in room 1.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=100.0, help="Pushes per second.")
@click.option("--seconds", type=click.FloatRange(0, _MAX_SECONDS, min_open=True), default=5.0, help="How long.")
@click.option("--size", type=click.IntRange(publisher.MIN_SIZE), default=64, help="Bytes of a body.")
@click.option("--transport", type=click.Choice(["ws", "tcp"]), default="ws", help="Of the clients.")
@click.option(
    "--topology",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure this fabric; started unless it runs. Without it: one of its own, on free ports.",
)
@click.option("--comets", type=click.IntRange(1), default=1, help="Comets of a fabric of its own.")
@click.option("--link-keys", is_flag=True, help="Links of a fabric of its own are encrypted.")
@click.option("--publishers", type=click.IntRange(1, 64), default=8, help="HTTP connections that push.")
@click.option("--sample", type=click.IntRange(1), default=20, help="Clients that read and check every message.")
@click.option("--runs", type=click.IntRange(1), default=1, help="Show the medians of so many runs.")
@click.option("--tls", is_flag=True, help="The comets of a fabric of its own speak TLS.")
@click.option(
    "--front",
    type=click.Choice(NAMES),
    help="Clients speak TLS to this proxy in front of one comet; it counts as part of the comet.",
)
@click.option("--push-latency", is_flag=True, help="Only one push at a time to one user among idle clients.")
@click.option("--bare/--no-bare", default=True, help="Measure the kernel's send() alone, too; two seconds more.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(runs: int, as_json: bool, **options: object) -> None:
    """Measure the fan-out of a fabric: N subscribers in one room, pushes through HTTP.

    messages/s counts from the first push to the last arrival. Latencies are those of the sample, from before the HTTP
    request is sent until the client has the message. Memory is the growth of the comets' RSS.

    Exit code 1 if not every subscriber received every accepted push once and in order.
    """
    chosen = Options(**options)  # type: ignore[arg-type]
    try:
        figures = [run(chosen) for _ in range(runs)]
    except ZimError as error:
        click.echo(f"benchmark: {error}", err=True)
        sys.exit(1)
    result = medians(figures)
    if as_json:
        click.echo(
            json.dumps({"options": _plain(chosen), "medians": asdict(result), "runs": list(map(asdict, figures))})
        )
    else:
        show(result, _title(chosen, runs))
    sys.exit(1 if result.problems else 0)


def _plain(options: Options) -> dict[str, object]:
    return {**asdict(options), "topology": str(options.topology) if options.topology else None}


def _title(options: Options, runs: int) -> str:
    what = f"{options.subscribers:,} {options.transport} subscribers"
    if not options.push_latency:
        what += f", {options.rate:g} pushes/s of {options.size} bytes for {options.seconds:g} s"
    return what + (f", medians of {runs} runs" if runs > 1 else "")


if __name__ == "__main__":
    main()
