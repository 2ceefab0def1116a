# SPDX-License-Identifier: Apache-2.0
"""The command line of tests/bench/run."""
import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import sys
import tempfile

import engines
import loop
import neighbour
import rates
import servers
import striped
import volumes
from processes import BenchError, mounts_below, run

MODES = {"table": rates.run, "striped": striped.run, "loop": loop.run,
         "neighbour": neighbour.run, "volumes": volumes.run, "engines": engines.run}
MIB = 1 << 20


class Env:
    """Where things are, and how long to measure."""

    def __init__(self, args, work, backing):
        self.work, self.backing = work, backing
        self.bin, self.out = args.bin.resolve(), args.out.resolve()
        self.rounds, self.seconds, self.realtime = args.rounds, args.time, args.realtime
        self.rows, self.only = args.rows, args.only
        self.size = args.size * MIB
        self.volumes, self.targets = args.volumes_count, args.targets_count
        self.dmfs_options = args.dmfs_option
        self._files = {}
        self._told = set()

    def program(self, name):
        built = self.bin / name
        return str(built) if built.exists() else shutil.which(name)

    def kinds(self, kinds):
        """Those that are asked for and can run here; says which are left out."""
        chosen = []
        for kind in kinds:
            if self.only and kind.name not in self.only:
                continue
            if missing := kind.missing(self):
                self.tell(f"left out: {kind.name} ({', '.join(missing)} not installed; "
                          "--install installs what it needs)")
            else:
                chosen.append(kind)
        if not chosen:
            raise BenchError("nothing is left to measure")
        return chosen

    def tell(self, text):
        if text not in self._told:
            self._told.add(text)
            print(text, file=sys.stderr)

    def backing_file(self, number, size=None):
        """A file full of data in the page cache; made once, shared by all servers in turn."""
        size = size or self.size
        path = self.backing / f"file{number}-{size // MIB}M"
        if path not in self._files:
            pattern = os.urandom(MIB)
            with open(path, "wb") as file:
                for _ in range(size // MIB):
                    file.write(pattern)
            self._files[path] = True
        return path


@contextlib.contextmanager
def work_dir(parent):
    """A directory that goes in the end, but never through something that is mounted in it."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="dmfs-bench-", dir=parent)).resolve()
    try:
        yield path
    finally:
        for mount in mounts_below(path):
            run(["umount", "-l", mount], check=False)
        if left := mounts_below(path):
            print(f"left behind, since it is mounted: {' '.join(left)}", file=sys.stderr)
        else:
            shutil.rmtree(path)


def numbers(text):
    return [int(word) for word in text.split(",")]


def names(text):
    known = [kind.name for kind in servers.ALL]
    for word in text.split(","):
        if word not in known:
            raise argparse.ArgumentTypeError(f"'{word}' is none of {', '.join(known)}")
    return text.split(",")


def parse():
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=(
        "Compares dmfs with the floor of FUSE, qemu-storage-daemon and nbdfuse."))
    add = parser.add_argument
    mode = parser.add_mutually_exclusive_group()
    for name, text in (("table", "ten fio workloads over all servers (the default)"),
                       ("striped", "striped and split I/O against linear"),
                       ("loop", "ext4 on a loop device over dmfs, floor and qemu (root)"),
                       ("neighbour", "a volume beside one that is held, hangs or is busy (root)"),
                       ("volumes", "10,000 volumes, and a table of 100,000 targets"),
                       ("engines", "the ways of reading and writing files, on a disk"),
                       ("all", "all of these")):
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, help=text)
    add("--rounds", type=int, default=3, help="default 3")
    add("--time", type=float, default=2, metavar="SECONDS", help="of each run, default 2")
    add("--rows", type=numbers, metavar="N,...", help="of the table, from 1 on")
    add("--only", type=names, metavar="SERVER,...", help="floor, dmfs, ...")
    add("--size", type=int, default=512, metavar="MIB", help="of the file, default 512")
    add("--volumes-count", type=int, default=10000, metavar="N")
    add("--targets-count", type=int, default=100000, metavar="N")
    add("--backing", type=pathlib.Path, default=pathlib.Path("/dev/shm"), metavar="DIR",
        help="for the files, default /dev/shm")
    add("-o", dest="dmfs_option", action="append", default=[], metavar="OPTION",
        help="a mount option for dmfs")
    add("--realtime", action="store_true", help=(
        "run what is measured before all else, for a machine that is busy with other things (root)"))
    add("--bin", type=pathlib.Path, default=root / "build/bench", metavar="DIR",
        help="of the built programs, default build/bench")
    add("--out", type=pathlib.Path, default=root / "build/bench/results",
        metavar="DIR", help="for JSON, Markdown and SVG, default build/bench/results")
    args = parser.parse_args()
    if args.rounds < 1 or args.time <= 0 or args.size < 64 or args.volumes_count < 1:
        parser.error("--rounds, --time, --volumes-count or --size (64 at least) is too small")
    if not 1 <= args.targets_count <= args.size * 256:
        parser.error("--targets-count: a target has 8 sectors at least, and the file no more")
    if args.rows and not all(1 <= row <= len(rates.ROWS) for row in args.rows):
        parser.error(f"--rows: from 1 to {len(rates.ROWS)}")
    return args


def main():
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    if args.realtime:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # children inherit it
    with work_dir(None) as work, work_dir(args.backing) as backing:
        env = Env(args, work, backing)
        for name in MODES if args.mode == "all" else [args.mode or "table"]:
            print(f"== {name}", flush=True)
            MODES[name](env)


if __name__ == "__main__":
    try:
        main()
    except BenchError as failed:
        sys.exit(f"tests/bench/run: {failed}")
    except KeyboardInterrupt:
        sys.exit(130)
