#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measures Platter's mounted files against those of other FUSE servers, on this machine, in the same run.

How it is done, and how to read what comes out, is told in docs/performance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True  # the source folder is not ours to write to
from turns import (  # noqa: E402
    MIB,
    BenchError,
    Driver,
    Group,
    Load,
    Peer,
    Server,
    View,
    check_folder,
    file_system,
    fill_in,
    main,
    make_images,
    parser,
    serve,
    version_of,
)

# ---------------------------------------------------------------- what is measured


def random_load(writing: bool, jobs: int, depth: int = 1) -> Load:
    """One request after another by each job; or many at once by one, as a virtual machine has them."""
    verb = "write" if writing else "read"
    waiting = depth == 1
    return Load(
        name=f"random-{verb}-4k-jobs{jobs}-depth{depth}",
        title=f"4 KiB random {verb}",
        detail=f"{jobs} job{'s' if jobs > 1 else ''}{'' if waiting else f', depth {depth}'}",
        arguments=(
            f"--rw=rand{verb}",
            "--norandommap",
            "--direct=1",
            f"--ioengine={'psync' if waiting else 'libaio'}",
            f"--iodepth={depth}",
            f"--numjobs={jobs}",
        ),
        block=4096,
        writing=writing,
        quick=waiting,
    )


def sequential_load(writing: bool, jobs: int) -> Load:
    verb = "write" if writing else "read"
    return Load(
        name=f"sequential-{verb}-1m-jobs{jobs}",
        title=f"1 MiB sequential {verb}",
        detail=f"{jobs} job{'s' if jobs > 1 else ''}",
        arguments=(
            f"--rw={verb}",
            "--direct=1",
            "--ioengine=psync",
            f"--numjobs={jobs}",
            "--offset_increment=25%",
        ),
        block=MIB,
        writing=writing,
        quick=jobs == 1,
    )


def cached_load(writing: bool) -> Load:
    """Through the page cache, which fio drops before it starts: once over the whole file, as cp does."""
    verb = "write" if writing else "read"
    return Load(
        name=f"once-{verb}-1m",
        title=f"1 MiB sequential {verb}, not O_DIRECT",
        detail="whole file once, cold",
        arguments=(
            f"--rw={verb}",
            "--direct=0",
            "--invalidate=1",
            "--ioengine=psync",
            "--time_based=0",
            "--runtime=60",
        ),
        block=MIB,
        writing=writing,
        quick=False,
    )


LOADS = [
    *(random_load(w, j) for w in (False, True) for j in (1, 4)),
    *(random_load(w, 1, depth=16) for w in (False, True)),
    *(sequential_load(w, j) for w in (False, True) for j in (1, 4)),
    *(cached_load(w) for w in (True, False)),
]


@dataclass(frozen=True)
class Context:
    """What a server's command line is made of."""

    settings: argparse.Namespace
    mount: Path  # a regular file, over which it mounts
    image: Path
    size: int


# No page cache, and writers of a file side by side.
DIRECT = "direct_io,parallel_direct_writes"


def options(*given: str) -> list[str]:
    joined = ",".join(g for g in given if g)
    return ["-o", joined] if joined else []


def platter(c: Context, spec: str, given: str) -> list[str]:
    return [str(c.settings.platter), "mount", *options(given, c.settings.options), str(c.mount), spec]


def platter_null(c: Context, given: str = "") -> list[str]:
    return platter(c, f"null:{c.size}", given)


def platter_mem(c: Context, given: str = "") -> list[str]:
    return platter(c, f"mem:{c.size}", given)


def platter_file(c: Context, given: str = "") -> list[str]:
    return platter(c, 'file:"' + re.sub(r'(["\\])', r"\\\1", str(c.image)) + '"', given)


def passthrough(c: Context, given: str = "") -> list[str]:
    return [str(c.settings.passthrough), *options(given), str(c.image), str(c.mount)]


def qemu_storage_daemon(c: Context, blockdev: str) -> list[str]:
    mount = str(c.mount).replace(",", ",,")
    return [
        "qemu-storage-daemon",
        "--blockdev",
        f"node-name=disk,{blockdev}",
        "--export",
        f"type=fuse,id=export,node-name=disk,mountpoint={mount},writable=on",
    ]


def qemu_file(c: Context) -> list[str]:
    image = str(c.image).replace(",", ",,")
    return qemu_storage_daemon(c, f"driver=file,locking=off,filename={image}")


def qemu_null(c: Context) -> list[str]:
    return qemu_storage_daemon(c, f"driver=null-co,read-zeroes=on,size={c.size}")


def nbdfuse(c: Context, *plugin: str) -> list[str]:
    """Starts its own nbdkit on a Unix socket, and has four connections to it."""
    kit = ["nbdkit", "--exit-with-parent", *plugin]
    return ["nbdfuse", "--connections=4", str(c.mount), "[", *kit, "]"]


BUILT = ("", "")  # no program to look for, no package


def qemu_peer(command: Callable[[Context], list[str]]) -> Peer:
    return Peer("qemu-storage-daemon", "qemu-storage-daemon", "qemu-system-common", command)


def fuse_peer(name: str, command: Callable[[Context], list[str]]) -> Peer:
    return Peer(name, "nbdfuse nbdkit", "nbdfuse nbdkit", command)


PASSING = (
    Peer("passthrough", *BUILT, passthrough),
    Peer("passthrough direct", *BUILT, lambda c: passthrough(c, DIRECT), image=1),
)


def views(name: str, title: str, passing: bool = True) -> tuple[View, ...]:
    ours, direct = f"platter {name}", f"platter {name} direct"
    others = ("qemu-storage-daemon", f"nbdfuse {name}")
    return (
        View(name, title, ours, (*others, "passthrough") if passing else others),
        View(
            f"{name}-direct",
            title,
            direct,
            (*others, "passthrough direct", ours) if passing else (*others, ours),
        ),
    )


GROUPS = [
    Group(
        name="mem",
        title="in memory",
        prefilled=True,
        views=views("mem", "in memory"),
        peers=(
            Peer("platter mem", *BUILT, platter_mem),
            Peer("platter mem direct", *BUILT, lambda c: platter_mem(c, DIRECT), image=1),
            qemu_peer(qemu_file),
            fuse_peer("nbdfuse mem", lambda c: nbdfuse(c, "memory", f"size={c.size}")),
            *PASSING,
        ),
    ),
    Group(
        name="file",
        title="raw file, in the page cache",
        image=True,
        views=views("file", "raw file, in the page cache"),
        peers=(
            Peer("platter file", *BUILT, platter_file),
            Peer("platter file direct", *BUILT, lambda c: platter_file(c, DIRECT), image=1),
            qemu_peer(qemu_file),
            fuse_peer("nbdfuse file", lambda c: nbdfuse(c, "file", f"file={c.image}")),
            *PASSING,
        ),
    ),
    Group(
        name="null",
        title="nothing behind the door",
        views=views("null", "nothing behind the door", passing=False),
        peers=(
            Peer("platter null", *BUILT, platter_null),
            Peer("platter null direct", *BUILT, lambda c: platter_null(c, DIRECT)),
            qemu_peer(qemu_null),
            fuse_peer("nbdfuse null", lambda c: nbdfuse(c, "null", f"size={c.size}")),
        ),
    ),
]


# ---------------------------------------------------------------- servers


def is_mounted(path: Path, size: int) -> bool:
    """Whether a file of the right size has come over the one that was there."""
    try:
        found = path.stat()
        return found.st_dev != path.parent.stat().st_dev and found.st_size == size
    except OSError:
        return False


@contextlib.contextmanager
def mount_point(path: Path) -> Iterator[None]:
    """An empty file to mount over. A server that dies leaves its mount behind: it is taken off."""
    path.touch()
    try:
        yield
    finally:
        mounts = Path("/proc/self/mounts").read_text()
        if f" {path} " in mounts:
            subprocess.run(["fusermount3", "-u", "-z", str(path)], capture_output=True, check=False)


def start_group(
    stack: contextlib.ExitStack, settings: argparse.Namespace, group: Group, peers: list[Peer]
) -> tuple[list[Server], list[Path]]:
    mounts = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="platter-bench-"))).resolve()
    where = settings.folder if group.image else settings.memory_folder
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="images-", dir=where)))
    size = settings.file_size if group.image else settings.size
    stored = group.image or group.prefilled
    images = [folder / f"{number}.img" for number in sorted({p.image for p in peers})] if stored else []
    make_images(images, size)
    servers = []
    for number, peer in enumerate(peers):
        path = mounts / f"{number}.disk"
        stack.enter_context(mount_point(path))
        context = Context(settings, path, folder / f"{peer.image}.img", size)
        server = serve(peer, context, path, lambda path=path: is_mounted(path, size))
        servers.append(stack.enter_context(server))
    if group.prefilled:
        for server in servers:
            run_fio(server, "--rw=write", "--bs=1m", "--ioengine=psync")
    return servers, images


# ---------------------------------------------------------------- measuring


def descendants(pid: int) -> Iterator[int]:
    """The process, and those it has started: nbdfuse has its nbdkit."""
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from descendants(int(child))


def cpu_seconds(pid: int) -> float:
    ticks = 0
    for process in descendants(pid):
        with contextlib.suppress(OSError):
            # Behind the name, which may have blanks and brackets in it: fields 14 and 15 of proc(5).
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def run_fio(server: Server, *arguments: str) -> list[dict[str, Any]]:
    command = [
        "fio",
        "--name=bench",
        f"--filename={server.place}",
        "--thread",
        "--allow_file_create=0",
        "--gtod_reduce=1",
        "--disk_util=0",
        "--output-format=json",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = done.stdout[done.stdout.find("{") :]  # what it has to say comes before
    jobs: list[dict[str, Any]] = []
    with contextlib.suppress(ValueError):
        jobs = json.loads(text)["jobs"]
    if done.returncode != 0 or not jobs or any(job["error"] for job in jobs):
        said = (done.stderr or done.stdout).strip().splitlines()
        raise BenchError(f"{server.peer.name}: fio: {' / '.join(said[:3])}{server.last_words()}")
    return jobs


def measure(settings: argparse.Namespace, server: Server, load: Load, seed: int) -> dict[str, float]:
    before = cpu_seconds(server.process.pid)
    jobs = run_fio(
        server,
        f"--bs={load.block}",
        "--time_based=1",
        f"--runtime={int(settings.seconds * 1000)}ms",
        f"--randseed={seed + 1}",
        "--group_reporting",
        *load.arguments,
    )
    cpu = cpu_seconds(server.process.pid) - before
    part = jobs[0]["write" if load.writing else "read"]
    if not part["total_ios"]:
        raise BenchError(f"{server.peer.name}: nothing was done in {settings.seconds} s (--seconds)")
    seconds = part["runtime"] / 1000
    client = (jobs[0]["usr_cpu"] + jobs[0]["sys_cpu"]) / 100 * jobs[0]["job_runtime"] / 1000
    return {
        "rate": part["total_ios"] / seconds * (load.block / MIB if load.block >= MIB else 1),
        "server_cpu_us": cpu / part["total_ios"] * 1e6,
        "client_cpu_us": client / part["total_ios"] * 1e6,
    }


# ---------------------------------------------------------------- command line


def versions(settings: argparse.Namespace) -> dict[str, str]:
    found = {"platter": version_of(str(settings.platter))}
    for program in ("nbdfuse", "nbdkit", "qemu-storage-daemon", "fusermount3", "fio"):
        found[program] = version_of(program)
    return {name: version for name, version in found.items() if version}


def check(settings: argparse.Namespace, groups: list[Group]) -> None:
    for path, what in ((settings.platter, "program"), (settings.passthrough, "program")):
        if not path.exists():
            raise BenchError(f"there is no {what} {path} (run this through: make bench)")
    for program, package in (("fio", "fio"), ("fusermount3", "fuse3")):
        if shutil.which(program) is None:
            raise BenchError(f"there is no program {program} (apt-get install {package})")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise BenchError("/dev/fuse cannot be opened: nothing can be mounted")
    check_folder(settings, groups)
    if file_system(settings.memory_folder) not in ("tmpfs", "ramfs"):
        print(f"bench: {settings.memory_folder} is not in memory (--memory-folder)", file=sys.stderr)


DRIVER = Driver(
    title="Platter against other FUSE servers",
    groups=GROUPS,
    loads=LOADS,
    start=start_group,
    measure=measure,
    check=check,
    versions=versions,
    method=("rounds", "seconds", "size", "file_size", "options"),
)


def parse_arguments() -> argparse.Namespace:
    p = parser(DRIVER, __doc__, "bench/mounts")
    p.add_argument("--options", default="", metavar="LIST", help="more -o for ours, such as threads=4")
    p.add_argument("--platter", type=Path, default=Path("platter"), help="the command (./platter)")
    p.add_argument("--passthrough", type=Path, default=Path("bench/passthrough"), help="the yardstick")
    p.add_argument("--memory-folder", type=Path, default=Path("/dev/shm"), help="for images in memory")
    s = p.parse_args()
    fill_in(s)
    s.platter, s.passthrough = s.platter.resolve(), s.passthrough.resolve()
    return s


if __name__ == "__main__":
    sys.exit(main(DRIVER, parse_arguments()))
