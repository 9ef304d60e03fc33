# SPDX-License-Identifier: BSD-3-Clause
"""What peers.py and mounts.py share: servers that take turns, and what their rounds say.

A driver brings loads (rows), groups of peers that serve the same thing, and measure(), which runs one load on
one server. All else is here: starting and stopping, the order of the rounds, ratios, tables, the command line.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import chart

MIB = 1 << 20
START_SECONDS = 20
STOP_SECONDS = 20
PR_SET_PDEATHSIG = 1


class BenchError(Exception):
    """Something that ends the run, told in one line."""


def progress(settings: argparse.Namespace, text: str) -> None:
    if not settings.silent:
        print(f"bench: {text}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Load:
    """One way to use a disk; a row of the table."""

    name: str
    title: str
    detail: str
    arguments: tuple[str, ...]
    block: int
    writing: bool
    quick: bool

    @property
    def unit(self) -> str:
        return "MiB/s" if self.block >= MIB else "IOPS"


@dataclass(frozen=True)
class Peer:
    """A server that can be measured. `command` makes its command line of the driver's own context."""

    name: str
    program: str  # or several; none: built here
    package: str
    command: Callable[[Any], list[str]]
    export: str = ""
    image: int = 0  # which of the images of its group it serves


@dataclass(frozen=True)
class View:
    """A table of each of `others` against `ours`, by names of peers."""

    name: str
    title: str
    ours: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Servers of the same thing. The first is ours and is compared with each of the others; or as `views` say."""

    name: str
    title: str
    peers: tuple[Peer, ...]
    prefilled: bool = False  # written once through the door
    image: bool = False  # all servers have one image file
    change: Callable[[Path], None] | None = None  # makes something of the image before it is served
    views: tuple[View, ...] = ()


def views_of(group: Group, present: list[Peer]) -> list[View]:
    names = [p.name for p in present]
    views = group.views or (View(group.name, group.title, names[0], tuple(names[1:])),)
    return [
        replace(v, others=tuple(o for o in v.others if o in names)) for v in views if v.ours in names
    ]


def only(group: Group, patterns: list[str]) -> Group:
    """The group with its first server and those of the others that match."""
    ours, *others = group.peers
    return replace(group, peers=(ours, *(p for p in others if any(re.search(x, p.name) for x in patterns))))


def twice(group: Group) -> Group:
    """The group with its first server in two copies."""
    ours = group.peers[0]
    again = replace(ours, name=f"{ours.name} again", image=ours.image + 1)
    return replace(group, peers=(ours, again), views=())


# ---------------------------------------------------------------- servers


def die_with_parent() -> None:
    """Runs in the child: a server never outlives the driver, however that one ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Server:
    """A running server, and where a client finds it."""

    peer: Peer
    place: Path
    log: Path
    process: subprocess.Popen[bytes]
    samples: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return "; it said: " + " / ".join(lines[-3:]) if lines else ""

    def wait_ready(self, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + START_SECONDS
        while not ready():
            if self.process.poll() is not None:
                raise BenchError(f"{self.peer.name} does not start{self.last_words()}")
            if time.monotonic() > end:
                raise BenchError(f"{self.peer.name} does not answer{self.last_words()}")
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"bench: {self.peer.name} had to be killed", file=sys.stderr)
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def serve(peer: Peer, context: Any, place: Path, ready: Callable[[], bool]) -> Iterator[Server]:
    log = place.with_suffix(".log")
    with log.open("wb") as out:
        # In a session of its own: Ctrl-C reaches the driver alone, which ends its servers in order.
        process = subprocess.Popen(
            peer.command(context),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    server = Server(peer, place, log, process)
    try:
        server.wait_ready(ready)
        yield server
    finally:
        server.stop()


def make_images(paths: Sequence[Path], size: int) -> None:
    """Allocated, written out, and in the page cache.

    Several images are written in turns and in small pieces, so that they lie in the page cache alike: what a small
    write costs depends on the size of the folio it meets, by a quarter and more.
    """
    page = bytes(1 + i * 7 % 255 for i in range(4096))
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("wb", buffering=0)) for path in paths]
        for f in files:
            os.posix_fallocate(f.fileno(), 0, size)
        for _ in range(0, size, len(page)):
            for f in files:
                f.write(page)
        for f in files:
            os.fsync(f.fileno())


def write_back(images: Sequence[Path]) -> None:
    """So that no server pays for writing back what another one has written."""
    for image in images:
        with image.open("rb") as f:
            os.fsync(f.fileno())


# ---------------------------------------------------------------- measuring

Measure = Callable[[argparse.Namespace, Server, Load, int], dict[str, float]]


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def compare(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict[str, float]:
    """What the rounds say of two servers: each ratio is of two runs that came shortly after one another."""
    ratios = [a["rate"] / b["rate"] for a, b in zip(ours, theirs, strict=True)]
    cpu = [a["server_cpu_us"] / max(b["server_cpu_us"], 1e-9) for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = quartiles(ratios)
    return {
        "median": middle,
        "quartile_low": low,
        "quartile_high": high,
        "min": min(ratios),
        "max": max(ratios),
        "cpu_median": statistics.median(cpu),
    }


def summarise(load: Load, view: View, servers: list[Server]) -> dict[str, Any]:
    wanted = (view.ours, *view.others)
    samples = {s.peer.name: s.samples[load.name] for s in servers if s.peer.name in wanted}
    return {
        "load": load.name,
        "title": load.title,
        "detail": load.detail,
        "unit": load.unit,
        "median": {
            name: {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
            for name, rounds in samples.items()
        },
        "ratio": {other: compare(samples[view.ours], samples[other]) for other in view.others},
        "rounds": samples,
    }


def order_of_round(servers: list[Server], number: int) -> list[Server]:
    """Everybody is first, last, before and after everybody else: what a run leaves behind hits all the same."""
    first = number // 2 % len(servers)
    turned = servers[first:] + servers[:first]
    return turned[::-1] if number % 2 else turned


@dataclass(frozen=True)
class Driver:
    """What one of the drivers brings along."""

    title: str  # of the chart
    groups: list[Group]
    loads: list[Load]
    start: Callable[
        [contextlib.ExitStack, argparse.Namespace, Group, list[Peer]], tuple[list[Server], list[Path]]
    ]  # starts the peers; the servers, and the images that they write to
    measure: Measure
    check: Callable[[argparse.Namespace, list[Group]], None]  # whether all is there, before anything is made
    versions: Callable[[argparse.Namespace], dict[str, str]]
    method: tuple[str, ...]  # settings that tell how it was measured


def run_group(
    driver: Driver, settings: argparse.Namespace, group: Group, peers: list[Peer], results: dict[str, Any]
) -> None:
    views = views_of(group, peers)
    tables: list[dict[str, Any]] = [
        {
            "name": v.name,
            "title": v.title,
            "peers": [v.ours, *v.others],
            "compared_with": [*v.others],
            "rows": [],
        }
        for v in views
    ]
    results["groups"] += tables
    loads = wanted_loads(driver, settings)
    with contextlib.ExitStack() as stack:
        progress(settings, f"{group.name}: starting {', '.join(p.name for p in peers)}")
        servers, images = driver.start(stack, settings, group, peers)
        for number, load in enumerate(loads):
            progress(settings, f"{group.name}: {load.title}, {load.detail} ({number + 1}/{len(loads)})")
            write_back(images)
            for r in range(settings.rounds):
                for server in order_of_round(servers, r):
                    sample = driver.measure(settings, server, load, r)
                    server.samples.setdefault(load.name, []).append(sample)
            for view, table in zip(views, tables, strict=True):
                table["rows"].append(summarise(load, view, servers))


def run_known(
    driver: Driver, settings: argparse.Namespace, group: Group, results: dict[str, Any]
) -> None:
    """Runs the group with those of its servers that are installed."""
    peers = []
    for p in group.peers:
        absent = [program for program in p.program.split() if not shutil.which(program)]
        text = f"{p.name}: there is no program {' '.join(absent)} (apt-get install {p.package})"
        if not absent:
            peers.append(p)
        elif text not in results["missing"]:
            results["missing"].append(text)
    run_group(driver, settings, group, peers, results)


def run(driver: Driver, settings: argparse.Namespace) -> None:
    groups = [g for g in driver.groups if not settings.group or g.name in settings.group]
    if settings.peer:
        groups = [only(g, settings.peer) for g in groups]
    if settings.twice:
        groups = [twice(g) for g in groups]
    wanted_loads(driver, settings)
    driver.check(settings, groups)
    results: dict[str, Any] = {
        "of": driver.title,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "machine": describe_machine(settings),
        "versions": driver.versions(settings),
        "method": {key: getattr(settings, key) for key in driver.method},
        "groups": [],
        "missing": [],
        "complete": False,
    }
    try:
        for group in groups:
            run_known(driver, settings, group, results)
        results["complete"] = True
    finally:
        results["machine"]["load_average_at_end"] = os.getloadavg()[0]
        results["groups"] = [g for g in results["groups"] if g["rows"]]
        if results["groups"]:
            save(settings, results)
    print_report(results, settings.markdown)


# ---------------------------------------------------------------- the machine


def first_match(path: str, pattern: str) -> str:
    with contextlib.suppress(OSError):
        found = re.search(pattern, Path(path).read_text(errors="replace"), re.MULTILINE)
        if found:
            return found.group(1).strip()
    return ""


def version_of(program: str) -> str:
    with contextlib.suppress(OSError):
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        found = re.search(r"\d+(\.\d+)+", done.stdout)
        if found:
            return found[0]
    return ""


def file_system(folder: Path) -> str:
    """The type of the file system that holds the folder."""
    best, kind = "", ""
    path = os.path.realpath(folder)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, where, what = line.split()[:3]
            if len(where) >= len(best) and os.path.commonpath([path, where]) == where:
                best, kind = where, what
    return kind


def describe_machine(settings: argparse.Namespace) -> dict[str, Any]:
    return {
        "cpu": first_match("/proc/cpuinfo", r"^model name\s*:\s*(.+)$") or platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "file_system": file_system(settings.folder),
        "load_average": os.getloadavg()[0],
    }


def check_folder(settings: argparse.Namespace, groups: list[Group]) -> None:
    """Whether the images find room, on something that is a disk."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    needed = max((len({p.image for p in g.peers}) * settings.file_size for g in groups if g.image), default=0)
    if shutil.disk_usage(settings.folder).free < needed * 1.1:
        raise BenchError(f"no {needed // MIB} MiB in {settings.folder} for images (--folder, --file-size)")
    if needed and file_system(settings.folder) in ("tmpfs", "ramfs"):
        print(f"bench: {settings.folder} is no real disk (--folder): file rows say little", file=sys.stderr)


# ---------------------------------------------------------------- output

COLUMNS = ("", "ours", "theirs", "ratio", "quartiles", "min..max", "server CPU us/request")


def format_rate(value: float, unit: str) -> str:
    return f"{value / 1000:.1f}k/s" if unit == "IOPS" else f"{value:.0f} MiB/s"


def cells(row: dict[str, Any], ours: str, peer: str) -> tuple[str, ...]:
    ratio, a, b = row["ratio"][peer], row["median"][ours], row["median"][peer]
    return (
        f"{row['title']}, {row['detail']}",
        format_rate(a["rate"], row["unit"]),
        format_rate(b["rate"], row["unit"]),
        f"{ratio['median']:.2f}",
        f"{ratio['quartile_low']:.2f}..{ratio['quartile_high']:.2f}",
        f"{ratio['min']:.2f}..{ratio['max']:.2f}",
        f"{a['server_cpu_us']:.1f} / {b['server_cpu_us']:.1f}",
    )


def text_table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for first, *others in rows:
        rest = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join((f"  {first:{widths[0]}}", *rest))


def markdown_table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    for number, row in enumerate(rows):
        yield "| " + " | ".join(row) + " |"
        if number == 0:
            yield "|---|" + "---:|" * (len(row) - 1)


def report(results: dict[str, Any], markdown: bool) -> Iterator[str]:
    machine, method = results["machine"], results["method"]
    yield f"{machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}, {results['date']};"
    yield ", ".join(f"{name} {version}" for name, version in results["versions"].items()) + ";"
    yield f"{method['rounds']} rounds of {method['seconds']} s a row and server, in turn."
    for group in results["groups"]:
        for peer in group["compared_with"]:
            ours = group["peers"][0]
            rows = [COLUMNS, *(cells(row, ours, peer) for row in group["rows"])]
            yield f"\n{'### ' if markdown else ''}{ours} / {peer} ({group['title']})\n"
            yield from markdown_table(rows) if markdown else text_table(rows)
    for name in results["missing"]:
        yield f"\nleft out: {name}"
    if not results["complete"]:
        yield "\nThis run did not come to its end."


def print_report(results: dict[str, Any], markdown: bool) -> None:
    for line in report(results, markdown):
        print(line)


def save(settings: argparse.Namespace, results: dict[str, Any]) -> None:
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    for ending, text in ((".json", json.dumps(results, indent=1) + "\n"), (".svg", chart.draw(results))):
        path = settings.output.with_name(settings.output.name + ending)
        path.write_text(text)
        progress(settings, f"wrote {path}")


# ---------------------------------------------------------------- command line


def size_in_bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)([KMGT]?)", text.upper())
    value = int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[found[2]] if found else 0
    if value < 2 * MIB or value % MIB:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size of whole MiB from 2M, such as 512M or 1G")
    return value


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1")
    return value


def parser(driver: Driver, description: str | None, output: str) -> argparse.ArgumentParser:
    """With what all drivers have; a driver adds its own."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="few loads, short rounds, small disks: does it work?")
    p.add_argument("--rounds", type=positive, metavar="N", help="rounds a row (12)")
    p.add_argument("--seconds", type=float, metavar="S", help="length of a run (0.7)")
    p.add_argument("--size", type=size_in_bytes, metavar="BYTES", help="size of disks in memory (1G)")
    p.add_argument("--file-size", type=size_in_bytes, metavar="BYTES", help="size of image files (1G)")
    p.add_argument("--group", action="append", choices=[g.name for g in driver.groups], help="only this group")
    p.add_argument("--load", action="append", metavar="REGEX", help="only loads whose name matches")
    p.add_argument("--peer", action="append", metavar="REGEX", help="only ours and peers whose name matches")
    p.add_argument("--twice", action="store_true", help="ours against ours: tells how far to trust the rest")
    p.add_argument("--list", action="store_true", help="list groups and loads, and end")
    p.add_argument("--folder", type=Path, help="where image files are made: a real disk (bench)")
    p.add_argument("--output", type=Path, default=Path(output), help=f"PREFIX of .json and .svg ({output})")
    p.add_argument("--show", type=Path, metavar="JSON", help="print the tables of an earlier run, and end")
    p.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    p.add_argument("--silent", action="store_true", help="no progress on standard error")
    return p


def fill_in(s: argparse.Namespace) -> None:
    """The defaults that depend on other settings."""
    s.rounds = s.rounds or (3 if s.quick else 12)
    s.seconds = s.seconds or (0.2 if s.quick else 0.7)
    s.size = s.size or (256 * MIB if s.quick else 1024 * MIB)
    s.file_size = s.file_size or (256 * MIB if s.quick else 1024 * MIB)
    s.folder = s.folder or s.output.parent


def wanted_loads(driver: Driver, settings: argparse.Namespace) -> list[Load]:
    loads = [load for load in driver.loads if load.quick or not settings.quick]
    if settings.load:
        loads = [load for load in driver.loads if any(re.search(p, load.name) for p in settings.load)]
    if not loads:
        raise BenchError("no load matches (--list tells their names)")
    return loads


def list_everything(driver: Driver) -> None:
    for group in driver.groups:
        print(f"group {group.name}: {', '.join(peer.name for peer in group.peers)}")
    for load in driver.loads:
        print(f"load {load.name}{' (quick)' if load.quick else ''}")


ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupted(number: int, _frame: object) -> None:
    """Ends the run. On the way out servers stop and files go, which a second Ctrl-C must not cut short."""
    for ending in ENDING_SIGNALS:
        signal.signal(ending, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main(driver: Driver, settings: argparse.Namespace) -> int:
    if settings.list or settings.show:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as in: peers.py --list | head
    if settings.list:
        list_everything(driver)
        return 0
    if settings.show:
        print_report(json.loads(settings.show.read_text()), settings.markdown)
        return 0
    for number in ENDING_SIGNALS:
        signal.signal(number, interrupted)
    try:
        run(driver, settings)
    except BenchError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1
    return 0
