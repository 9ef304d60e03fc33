#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measures Platter's NBD door against other NBD servers, on this machine, in the same run.

How it is done, and how to read what comes out, is told in docs/performance.md.
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
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True  # the source folder is not ours to write to
import chart  # noqa: E402

MIB = 1 << 20
START_SECONDS = 20
STOP_SECONDS = 20
PR_SET_PDEATHSIG = 1


class BenchError(Exception):
    """Something that ends the run, told in one line."""


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


def random_load(writing: bool, depth: int, connections: int) -> Load:
    verb = "write" if writing else "read"
    return Load(
        name=f"random-{verb}-4k-depth{depth}-conn{connections}",
        title=f"4 KiB random {verb}",
        detail=f"depth {depth}, {connections} connection{'s' if connections > 1 else ''}",
        arguments=("--random", f"--depth={depth}", f"--connections={connections}"),
        block=4096,
        writing=writing,
        quick=depth in (1, 32) and connections == 1,
    )


def sequential_load(writing: bool, depth: int) -> Load:
    verb = "write" if writing else "read"
    return Load(
        name=f"sequential-{verb}-1m-depth{depth}-conn1",
        title=f"1 MiB sequential {verb}",
        detail=f"depth {depth}, 1 connection",
        arguments=(f"--depth={depth}",),
        block=MIB,
        writing=writing,
        quick=True,
    )


LOADS = [
    *(random_load(w, d, c) for w in (False, True) for c in (1, 4) for d in (1, 32, 64)),
    *(sequential_load(w, 4) for w in (False, True)),
]


@dataclass(frozen=True)
class Context:
    """What a server's command line is made of."""

    settings: argparse.Namespace
    socket: Path
    image: Path  # only for servers of an image
    size: int


def nbdkit(c: Context, *plugin: str) -> list[str]:
    threads = [f"--threads={c.settings.threads}"] if c.settings.threads else []
    return ["nbdkit", "--foreground", *threads, "--unix", str(c.socket), *plugin]


def platter(c: Context, kind: str, body: str) -> list[str]:
    quoted = '"' + re.sub(r'(["\\])', r"\\\1", body) + '"' if kind == "file" else body
    return nbdkit(c, str(c.settings.plugin), f"disk={kind}:{quoted}")


def qemu_nbd(c: Context) -> list[str]:
    image = str(c.image).replace(",", ",,")
    return [
        "qemu-nbd",
        "--persistent",
        "--shared=16",
        "--cache=writeback",
        f"--socket={c.socket}",
        "--image-opts",
        f"driver=raw,file.driver=file,file.locking=off,file.filename={image}",
    ]


def qemu_storage_daemon(c: Context) -> list[str]:
    image, path = (str(p).replace(",", ",,") for p in (c.image, c.socket))
    return [
        "qemu-storage-daemon",
        "--blockdev",
        f"driver=file,node-name=disk,locking=off,filename={image}",
        "--nbd-server",
        f"addr.type=unix,addr.path={path}",
        "--export",
        "type=nbd,id=export,node-name=disk,name=disk,writable=on",
    ]


@dataclass(frozen=True)
class Peer:
    """A server that can be measured."""

    name: str
    program: str
    package: str
    command: Callable[[Context], list[str]]
    export: str = ""


@dataclass(frozen=True)
class Group:
    """Servers of the same thing. The first one is ours and is compared with each of the others."""

    name: str
    title: str
    peers: tuple[Peer, ...]
    prefilled: bool = False  # written once through the door
    image: bool = False  # all servers have one image file


def kit_peer(name: str, command: Callable[[Context], list[str]]) -> Peer:
    return Peer(name, "nbdkit", "nbdkit", command)


GROUPS = [
    Group(
        name="mem",
        title="RAM disk",
        prefilled=True,
        peers=(
            kit_peer("platter mem", lambda c: platter(c, "mem", str(c.size))),
            kit_peer("nbdkit memory", lambda c: nbdkit(c, "memory", f"size={c.size}")),
        ),
    ),
    Group(
        name="file",
        title="raw file, in the page cache",
        image=True,
        peers=(
            kit_peer("platter file", lambda c: platter(c, "file", str(c.image))),
            kit_peer("nbdkit file", lambda c: nbdkit(c, "file", f"file={c.image}")),
            Peer("qemu-nbd", "qemu-nbd", "qemu-utils", qemu_nbd),
            Peer(
                "qemu-storage-daemon",
                "qemu-storage-daemon",
                "qemu-system-common",
                qemu_storage_daemon,
                export="disk",
            ),
        ),
    ),
    Group(
        name="null",
        title="nothing behind the door",
        peers=(
            kit_peer("platter null", lambda c: platter(c, "null", str(c.size))),
            kit_peer("nbdkit null", lambda c: nbdkit(c, "null", f"size={c.size}")),
        ),
    ),
]


# ---------------------------------------------------------------- servers


def die_with_parent() -> None:
    """Runs in the child: a server never outlives the driver, however that one ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def answers(path: Path) -> bool:
    """Whether an NBD server greets on the socket."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(START_SECONDS)
        try:
            s.connect(str(path))
            return s.recv(8) == b"NBDMAGIC"
        except OSError:
            return False


@dataclass
class Server:
    """A running server."""

    peer: Peer
    socket: Path
    log: Path
    process: subprocess.Popen[bytes]
    samples: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return "; it said: " + " / ".join(lines[-3:]) if lines else ""

    def wait_ready(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not answers(self.socket):
            if self.process.poll() is not None:
                raise BenchError(f"{self.peer.name} does not start{self.last_words()}")
            if time.monotonic() > end:
                raise BenchError(f"{self.peer.name} does not answer on its socket")
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
def serve(peer: Peer, context: Context) -> Iterator[Server]:
    log = context.socket.with_suffix(".log")
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
    server = Server(peer, context.socket, log, process)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def make_images(paths: list[Path], size: int) -> None:
    """Allocated, written out, and in the page cache.

    Several images (--twice) are written in turns and in small pieces, so that they lie in the page cache alike: what a small
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


def write_back(images: list[Path]) -> None:
    """So that no server pays for writing back what another one has written."""
    for image in images:
        with image.open("rb") as f:
            os.fsync(f.fileno())


# ---------------------------------------------------------------- measuring


def run_client(settings: argparse.Namespace, server: Server, *arguments: str) -> dict[str, float]:
    command = [
        str(settings.client),
        f"--export={server.peer.export}",
        f"--server-pid={server.process.pid}",
        *arguments,
        str(server.socket),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{server.peer.name}: {done.stderr.strip()}{server.last_words()}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(settings: argparse.Namespace, server: Server, load: Load, seed: int) -> dict[str, float]:
    arguments = [
        f"--block={load.block}",
        f"--seconds={settings.seconds}",
        f"--warmup={settings.warmup}",
        f"--seed={seed}",
        *load.arguments,
        *(["--write"] if load.writing else []),
    ]
    r = run_client(settings, server, *arguments)
    operations = max(r["operations"], 1)
    return {
        "rate": r["operations"] / r["seconds"] * (load.block / MIB if load.block >= MIB else 1),
        "server_cpu_us": r["server_cpu_seconds"] / operations * 1e6,
        "client_cpu_us": r["client_cpu_seconds"] / operations * 1e6,
    }


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


def summarise(load: Load, servers: list[Server]) -> dict[str, Any]:
    samples = {s.peer.name: s.samples[load.name] for s in servers}
    ours, *others = servers
    return {
        "load": load.name,
        "title": load.title,
        "detail": load.detail,
        "unit": load.unit,
        "median": {
            name: {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
            for name, rounds in samples.items()
        },
        "ratio": {o.peer.name: compare(samples[ours.peer.name], samples[o.peer.name]) for o in others},
        "rounds": samples,
    }


def order_of_round(servers: list[Server], number: int) -> list[Server]:
    """Everybody is first, last, before and after everybody else: what a run leaves behind hits all the same."""
    first = number // 2 % len(servers)
    turned = servers[first:] + servers[:first]
    return turned[::-1] if number % 2 else turned


def run_load(settings: argparse.Namespace, load: Load, servers: list[Server]) -> dict[str, Any]:
    for r in range(settings.rounds):
        for server in order_of_round(servers, r):
            server.samples.setdefault(load.name, []).append(measure(settings, server, load, seed=r))
    return summarise(load, servers)


def progress(settings: argparse.Namespace, text: str) -> None:
    if not settings.silent:
        print(f"bench: {text}", file=sys.stderr, flush=True)


def start_group(
    stack: contextlib.ExitStack, settings: argparse.Namespace, group: Group, peers: list[Peer]
) -> tuple[list[Server], list[Path]]:
    sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="platter-bench-")))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="images-", dir=settings.folder)))
    size = settings.file_size if group.image else settings.size
    contexts = [
        Context(settings, sockets / f"{number}.sock", folder / f"{number if settings.twice else 0}.img", size)
        for number in range(len(peers))
    ]
    images = sorted({c.image for c in contexts}) if group.image else []
    make_images(images, size)
    servers = [stack.enter_context(serve(p, c)) for p, c in zip(peers, contexts, strict=True)]
    if group.prefilled:
        for server in servers:
            run_client(settings, server, "--fill", f"--block={MIB}", "--depth=4")
    return servers, images


def run_group(
    settings: argparse.Namespace, group: Group, peers: list[Peer], loads: list[Load], result: dict[str, Any]
) -> None:
    with contextlib.ExitStack() as stack:
        progress(settings, f"{group.name}: starting {', '.join(p.name for p in peers)}")
        servers, images = start_group(stack, settings, group, peers)
        for number, load in enumerate(loads):
            progress(settings, f"{group.name}: {load.title}, {load.detail} ({number + 1}/{len(loads)})")
            write_back(images)
            result["rows"].append(run_load(settings, load, servers))


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


def versions(settings: argparse.Namespace) -> dict[str, str]:
    dump = subprocess.run(
        ["nbdkit", str(settings.plugin), "--dump-plugin"], capture_output=True, text=True, check=False
    )
    if dump.returncode != 0:
        raise BenchError(f"nbdkit cannot load {settings.plugin}: {dump.stderr.strip()}")
    ours = re.search(r"^platter_version=(.*)$", dump.stdout, re.MULTILINE)
    found = {"platter": ours.group(1) if ours else "?"}
    for program in ("nbdkit", "qemu-nbd", "qemu-storage-daemon"):
        found[program] = version_of(program)
    return {name: version for name, version in found.items() if version}


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


def parse_arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="few loads, short rounds, small disks: does it work?")
    p.add_argument("--rounds", type=positive, metavar="N", help="rounds a row (12)")
    p.add_argument("--seconds", type=float, metavar="S", help="length of a run (0.7)")
    p.add_argument("--warmup", type=float, default=0.1, metavar="S", help="not counted time before it (0.1)")
    p.add_argument("--size", type=size_in_bytes, metavar="BYTES", help="size of RAM and null disks (1G)")
    p.add_argument("--file-size", type=size_in_bytes, metavar="BYTES", help="size of image files (1G)")
    p.add_argument("--group", action="append", choices=[g.name for g in GROUPS], help="only this group")
    p.add_argument("--load", action="append", metavar="REGEX", help="only loads whose name matches")
    p.add_argument("--twice", action="store_true", help="ours against ours: tells how far to trust the rest")
    p.add_argument("--list", action="store_true", help="list groups and loads, and end")
    p.add_argument("--threads", type=positive, metavar="N", help="--threads for all nbdkits (its default)")
    p.add_argument("--plugin", type=Path, default=Path("plugin.so"), help="the plugin (./plugin.so)")
    p.add_argument("--client", type=Path, default=Path("bench/nbd-load"), help="nbd-load (bench/nbd-load)")
    p.add_argument("--folder", type=Path, help="where image files are made: a real disk (bench)")
    p.add_argument("--output", type=Path, default=Path("bench/results"), help="PREFIX of .json and .svg")
    p.add_argument("--show", type=Path, metavar="JSON", help="print the tables of an earlier run, and end")
    p.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    p.add_argument("--silent", action="store_true", help="no progress on standard error")
    s = p.parse_args()
    s.rounds = s.rounds or (3 if s.quick else 12)
    s.seconds = s.seconds or (0.2 if s.quick else 0.7)
    s.size = s.size or (256 * MIB if s.quick else 1024 * MIB)
    s.file_size = s.file_size or (256 * MIB if s.quick else 1024 * MIB)
    s.folder = s.folder or s.output.parent
    s.plugin, s.client = s.plugin.resolve(), s.client.resolve()
    return s


def wanted_loads(settings: argparse.Namespace) -> list[Load]:
    loads = [load for load in LOADS if load.quick or not settings.quick]
    if settings.load:
        loads = [load for load in LOADS if any(re.search(p, load.name) for p in settings.load)]
    if not loads:
        raise BenchError("no load matches (peers.py --list tells their names)")
    return loads


def list_everything() -> None:
    for group in GROUPS:
        print(f"group {group.name}: {', '.join(peer.name for peer in group.peers)}")
    for load in LOADS:
        print(f"load {load.name}{' (quick)' if load.quick else ''}")


def check_place(settings: argparse.Namespace, groups: list[Group]) -> None:
    for path, what in ((settings.plugin, "plugin"), (settings.client, "client")):
        if not path.exists():
            raise BenchError(f"there is no {what} {path} (run this through: make bench)")
    settings.folder.mkdir(parents=True, exist_ok=True)
    images = 2 if settings.twice else 1
    needed = max((images * settings.file_size for g in groups if g.image), default=0)
    if shutil.disk_usage(settings.folder).free < needed * 1.1:
        raise BenchError(f"no {needed // MIB} MiB in {settings.folder} for images (--folder, --file-size)")
    if needed and file_system(settings.folder) in ("tmpfs", "ramfs"):
        print(f"bench: {settings.folder} is no real disk (--folder): file rows say little", file=sys.stderr)


METHOD = ("rounds", "seconds", "warmup", "size", "file_size", "threads")


def twice(group: Group) -> Group:
    """The group with its first server in two copies."""
    ours = group.peers[0]
    return replace(group, peers=(ours, replace(ours, name=f"{ours.name} again")))


def run(settings: argparse.Namespace) -> None:
    groups = [g for g in GROUPS if not settings.group or g.name in settings.group]
    if settings.twice:
        groups = [twice(g) for g in groups]
    loads = wanted_loads(settings)
    if shutil.which("nbdkit") is None:
        raise BenchError("there is no nbdkit, which serves our disks (apt-get install nbdkit)")
    check_place(settings, groups)
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "machine": describe_machine(settings),
        "versions": versions(settings),
        "method": {key: getattr(settings, key) for key in METHOD},
        "groups": [],
        "missing": [],
        "complete": False,
    }
    try:
        for group in groups:
            run_known(settings, group, loads, results)
        results["complete"] = True
    finally:
        results["machine"]["load_average_at_end"] = os.getloadavg()[0]
        results["groups"] = [g for g in results["groups"] if g["rows"]]
        if results["groups"]:
            save(settings, results)
    print_report(results, settings.markdown)


def run_known(
    settings: argparse.Namespace, group: Group, loads: list[Load], results: dict[str, Any]
) -> None:
    """Runs the group with those of its servers that are installed."""
    peers = [p for p in group.peers if shutil.which(p.program)]
    results["missing"] += [
        f"{p.name}: there is no program {p.program} (apt-get install {p.package})"
        for p in group.peers
        if p not in peers
    ]
    result: dict[str, Any] = {
        "name": group.name,
        "title": group.title,
        "peers": [p.name for p in peers],
        "compared_with": [p.name for p in peers[1:]],
        "rows": [],
    }
    results["groups"].append(result)
    run_group(settings, group, peers, loads, result)


ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupted(number: int, _frame: object) -> None:
    """Ends the run. On the way out servers stop and files go, which a second Ctrl-C must not cut short."""
    for ending in ENDING_SIGNALS:
        signal.signal(ending, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> int:
    settings = parse_arguments()
    if settings.list or settings.show:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as in: peers.py --list | head
    if settings.list:
        list_everything()
        return 0
    if settings.show:
        print_report(json.loads(settings.show.read_text()), settings.markdown)
        return 0
    for number in ENDING_SIGNALS:
        signal.signal(number, interrupted)
    try:
        run(settings)
    except BenchError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
