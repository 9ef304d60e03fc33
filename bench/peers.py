#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measures Platter's NBD door against other NBD servers, on this machine, in the same run.

How it is done, and how to read what comes out, is told in docs/performance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.dont_write_bytecode = True  # the source folder is not ours to write to
from turns import (  # noqa: E402
    MIB,
    START_SECONDS,
    BenchError,
    Driver,
    Group,
    Load,
    Peer,
    Server,
    check_folder,
    fill_in,
    main,
    make_images,
    parser,
    positive,
    serve,
    version_of,
)

# ---------------------------------------------------------------- what is measured


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


# A hypervisor that shadows page tables takes a fault of its own when memory is used first after it was written.
READ_AFTER_FILL = 3  # seconds

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


def qemu_nbd(c: Context, driver: str = "driver=raw", *options: str) -> list[str]:
    image = str(c.image).replace(",", ",,")
    return [
        "qemu-nbd",
        "--persistent",
        "--shared=16",
        "--cache=writeback",
        f"--socket={c.socket}",
        *options,
        "--image-opts",
        f"{driver},file.driver=file,file.locking=off,file.filename={image}",
    ]


def secret_of(image: Path) -> tuple[str, ...]:
    """How QEMU is told the passphrase of a LUKS image, which is public here."""
    return "--object", f"secret,id=s,file={str(passphrase_of(image)).replace(',', ',,')}"


def passphrase_of(image: Path) -> Path:
    return image.with_name("passphrase")


def make_luks(image: Path) -> None:
    """Turns an image into a LUKS1 volume of about the same size, which all peers know."""
    passphrase = passphrase_of(image)
    passphrase.touch(mode=0o600)
    passphrase.write_text("passphrase")
    size = image.stat().st_size
    what = ["qemu-img", "create", "-q", "-f", "luks", *secret_of(image), "-o", "key-secret=s", str(image)]
    done = subprocess.run([*what, str(size - 16 * MIB)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"qemu-img makes no LUKS image (apt-get install qemu-utils): {done.stderr.strip()}")
    with image.open("r+b") as f:
        os.posix_fallocate(f.fileno(), 0, size)


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
        name="luks",
        title="LUKS1 image (AES-256), in the page cache",
        prefilled=True,
        image=True,
        change=make_luks,
        peers=(
            kit_peer("platter luks", lambda c: platter(c, "luks", f"{passphrase_of(c.image)}:file:{c.image}")),
            kit_peer(
                "nbdkit luks filter",
                lambda c: nbdkit(
                    c, "--filter=luks", "file", f"file={c.image}", f"passphrase=+{passphrase_of(c.image)}"
                ),
            ),
            Peer(
                "qemu-nbd luks",
                "qemu-nbd",
                "qemu-utils",
                lambda c: qemu_nbd(c, "driver=luks,key-secret=s", *secret_of(c.image)),
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


def answers(path: Path) -> bool:
    """Whether an NBD server greets on the socket."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(START_SECONDS)
        try:
            s.connect(str(path))
            return s.recv(8) == b"NBDMAGIC"
        except OSError:
            return False


# ---------------------------------------------------------------- measuring


def run_client(settings: argparse.Namespace, server: Server, *arguments: str) -> dict[str, float]:
    command = [
        str(settings.client),
        f"--export={server.peer.export}",
        f"--server-pid={server.process.pid}",
        *arguments,
        str(server.place),
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


def start_group(
    stack: contextlib.ExitStack, settings: argparse.Namespace, group: Group, peers: list[Peer]
) -> tuple[list[Server], list[Path]]:
    sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="platter-bench-")))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="images-", dir=settings.folder)))
    size = settings.file_size if group.image else settings.size
    images = [folder / f"{number}.img" for number in sorted({p.image for p in peers})] if group.image else []
    make_images(images, size)
    if group.change:
        for image in images:
            group.change(image)
    servers = []
    for number, peer in enumerate(peers):
        path = sockets / f"{number}.sock"
        context = Context(settings, path, folder / f"{peer.image}.img", size)
        servers.append(stack.enter_context(serve(peer, context, path, lambda path=path: answers(path))))
    if group.prefilled:
        for server in servers:
            run_client(settings, server, "--fill", f"--block={MIB}", "--depth=4")
            run_client(settings, server, f"--seconds={READ_AFTER_FILL}", f"--block={MIB}", "--depth=4")
    return servers, images


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


# ---------------------------------------------------------------- command line


def check(settings: argparse.Namespace, groups: list[Group]) -> None:
    if shutil.which("nbdkit") is None:
        raise BenchError("there is no nbdkit, which serves our disks (apt-get install nbdkit)")
    for path, what in ((settings.plugin, "plugin"), (settings.client, "client")):
        if not path.exists():
            raise BenchError(f"there is no {what} {path} (run this through: make bench)")
    check_folder(settings, groups)


DRIVER = Driver(
    title="Platter against other NBD servers",
    groups=GROUPS,
    loads=LOADS,
    start=start_group,
    measure=measure,
    check=check,
    versions=versions,
    method=("rounds", "seconds", "warmup", "size", "file_size", "threads"),
)


def parse_arguments() -> argparse.Namespace:
    p = parser(DRIVER, __doc__, "bench/results")
    p.add_argument("--warmup", type=float, default=0.1, metavar="S", help="not counted time before a run (0.1)")
    p.add_argument("--threads", type=positive, metavar="N", help="--threads for all nbdkits (its default)")
    p.add_argument("--plugin", type=Path, default=Path("plugin.so"), help="the plugin (./plugin.so)")
    p.add_argument("--client", type=Path, default=Path("bench/nbd-load"), help="nbd-load (bench/nbd-load)")
    s = p.parse_args()
    fill_in(s)
    s.plugin, s.client = s.plugin.resolve(), s.client.resolve()
    return s


if __name__ == "__main__":
    sys.exit(main(DRIVER, parse_arguments()))
