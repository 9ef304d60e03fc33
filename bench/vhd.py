#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measures VHD images against qemu-nbd's driver vpc, and against a raw file, in the same run and on the same file system.

What bench/peers.py cannot do: writes to blocks that are not there yet. Each round makes a new image for that and serves it by
one program after the other, in turns; the median of all rounds is shown, and how it compares.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Peer:
    name: str
    make: Callable[[argparse.Namespace, Path, int], list[str]]  # the command that makes an image, of so many bytes
    serve: Callable[[argparse.Namespace, Path, Path], list[str]]  # the server's: image, socket


@dataclass(frozen=True)
class Load:
    name: str
    size: int  # of the disk
    arguments: tuple[str, ...]
    block: int
    filled: bool = False  # written once before


def qemu_image(_: argparse.Namespace, image: Path, size: int) -> list[str]:
    return ["qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=dynamic,force_size=on", str(image), str(size)]


def raw_image(_: argparse.Namespace, image: Path, size: int) -> list[str]:
    return ["truncate", "-s", str(size), str(image)]


def nbdkit(s: argparse.Namespace, socket: Path, disk: str) -> list[str]:
    return ["nbdkit", "--foreground", "--unix", str(socket), str(s.plugin), f"disk={disk}"]


PEERS = [
    Peer("platter vhd", qemu_image, lambda s, image, socket: nbdkit(s, socket, f"vhd:{image}")),
    Peer(
        "qemu-nbd vpc",
        qemu_image,
        lambda s, image, socket: [
            *("qemu-nbd", "--persistent", "--shared=16", "--cache=writeback", f"--socket={socket}"),
            *("--image-opts", f"driver=vpc,file.driver=file,file.locking=off,file.filename={image}"),
        ],
    ),
    Peer("platter file", raw_image, lambda s, image, socket: nbdkit(s, socket, f"file:{image}")),
]

LOADS = [
    Load("4 KiB random write to new blocks, depth 1", 64 << 30, ("--random", "--write", "--depth=1"), 4096),
    Load("4 KiB random write to new blocks, depth 32", 64 << 30, ("--random", "--write", "--depth=32"), 4096),
    Load("1 MiB sequential fill, depth 4", 4 << 30, ("--write", "--depth=4"), MIB),
    Load("4 KiB random read, depth 32", 256 * MIB, ("--random", "--depth=32"), 4096, filled=True),
    Load("4 KiB random overwrite, depth 32", 256 * MIB, ("--random", "--write", "--depth=32"), 4096, filled=True),
    Load("4 KiB random read, depth 1", 256 * MIB, ("--random", "--depth=1"), 4096, filled=True),
]


def run_client(s: argparse.Namespace, server: subprocess.Popen[bytes], socket: Path, *arguments: str) -> dict[str, float]:
    command = [str(s.client), "--export=", f"--server-pid={server.pid}", *arguments, str(socket)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"vhd.py: {done.stderr.strip()}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(s: argparse.Namespace, peer: Peer, load: Load, seed: int) -> float:
    """Operations a second, or MiB a second for large ones."""
    with tempfile.TemporaryDirectory(prefix="platter-bench-", dir=s.folder) as folder:
        image, socket = Path(folder) / "image", Path(folder) / "socket"
        subprocess.run(peer.make(s, image, load.size), check=True)
        with subprocess.Popen(peer.serve(s, image, socket)) as server:
            try:
                for _ in range(200):
                    if socket.exists():
                        break
                    time.sleep(0.05)
                if load.filled:
                    run_client(s, server, socket, "--fill", f"--block={MIB}", "--depth=4")
                r = run_client(
                    s, server, socket, f"--block={load.block}", f"--seconds={s.seconds}", "--warmup=0", f"--seed={seed}", *load.arguments
                )
            finally:
                server.terminate()
    return r["operations"] / r["seconds"] * (load.block / MIB if load.block >= MIB else 1)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (5)")
    p.add_argument("--seconds", type=float, default=2, metavar="S", help="of each run (2)")
    p.add_argument("--folder", type=Path, default=Path("."), help="where images are made (.)")
    p.add_argument("--plugin", type=Path, default=Path("plugin.so"), help="the plugin (./plugin.so)")
    p.add_argument("--client", type=Path, default=Path("bench/nbd-load"), help="nbd-load (bench/nbd-load)")
    p.add_argument("--only", default="", metavar="TEXT", help="the loads with this in their names")
    p.add_argument("--quick", action="store_true", help="one short round")
    s = p.parse_args()
    if s.quick:
        s.rounds, s.seconds = 1, 0.3
    s.plugin, s.client, s.folder = s.plugin.resolve(), s.client.resolve(), s.folder.resolve()  # qemu-nbd takes absolute paths only
    for load in (one for one in LOADS if s.only in one.name):
        rates: dict[str, list[float]] = {peer.name: [] for peer in PEERS}
        for n in range(s.rounds):
            for peer in PEERS[n % len(PEERS) :] + PEERS[: n % len(PEERS)]:
                rates[peer.name].append(measure(s, peer, load, n + 1))
        ours = statistics.median(rates[PEERS[0].name])
        print(f"{load.name} ({'MiB' if load.block >= MIB else 'operations'}/s)")
        for name, list_of in rates.items():
            found = statistics.median(list_of)
            print(f"  {name:14} {found:12.1f}  platter vhd / {name}: {ours / found:.2f}")


if __name__ == "__main__":
    main()
