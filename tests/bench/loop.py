# SPDX-License-Identifier: Apache-2.0
"""ext4 on a loop device (direct I/O) over the FUSE file: dmfs against floor and qemu."""
import contextlib
import os

import servers
from fio import Job, measure, value
from processes import BenchError, run as command, wait_for
from report import machine, median, number, ratio, save, table

ROWS = (Job("write", "1m", "libaio", 8), Job("read", "1m", "libaio", 8),
        Job("randread", "4k", "libaio", 32), Job("randwrite", "4k", "libaio", 32),
        Job("randread", "4k"), Job("randwrite", "4k"),
        Job("randread", "4k", jobs=16),
        Job("write", "1m", direct=False, extra=("--fsync=64",)))
KINDS = (servers.Floor, servers.QemuStorageDaemon, servers.Dmfs)


def prepare(env, image):
    """A new ext4 with one file, made without any of the servers: qemu 7.2 mixes up parallel
    writes, and not even mkfs over its export leaves a file system that mounts."""
    command(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", image])
    with mounted(env, image) as directory:
        measure(Job("write", "1m"), directory / "file", None, env.size // 2)


@contextlib.contextmanager
def mounted(env, path, *options):
    """The ext4 in `path`, on a loop device; yields its directory."""
    directory = env.work / "ext4"
    directory.mkdir(exist_ok=True)
    device = command(["losetup", "--find", "--show", *options, path]).strip()
    try:
        command(["mount", "-o", "errors=continue", device, directory])
        try:
            yield directory
        finally:
            command(["umount", directory])
    finally:
        command(["losetup", "-d", device])
        # Detaching is lazy; until it is done the server's file is in use.
        wait_for(f"{device} to be free", lambda: not command(
            ["losetup", "-nO", "BACK-FILE", device], check=False).strip().startswith("/"))


def once(env, kind, results, damaged):
    image = env.backing_file(0)
    prepare(env, image)
    with kind(env, [image]) as server, mounted(env, server.paths[0], "--direct-io=on") as directory:
        for job in ROWS:
            results[job][kind.name].append(
                value(job, measure(job, directory / "file", env.seconds, env.size // 2)))
            command(["sync", "-f", directory])
    try:
        command(["e2fsck", "-fn", image])
    except BenchError:
        damaged.add(kind.name)


def run(env):
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        raise BenchError("--loop needs root and loop devices")
    kinds = env.kinds(KINDS)
    names = [kind.name for kind in kinds]
    results = {job: {name: [] for name in names} for job in ROWS}
    damaged = set()
    for turn in range(env.rounds):
        for i in range(len(kinds)):
            once(env, kinds[(turn + i) % len(kinds)], results, damaged)
    others = [name for name in names if name != "dmfs" and "dmfs" in names]
    data = {"machine": machine(env), "rows": [], "damaged": sorted(damaged)}
    for job, runs in results.items():
        data["rows"].append({"workload": job.title, "unit": job.unit, "runs": runs, "ratios": {
            f"dmfs/{other}": ratio(runs["dmfs"], runs[other]) for other in others}})
    ratios = list(data["rows"][0]["ratios"])
    text = table(["ext4 on loop", "", *names, *ratios],
                 [[row["workload"], row["unit"], *(number(median(row["runs"][n])) for n in names),
                   *(number(row["ratios"][r]) for r in ratios)] for row in data["rows"]])
    verdicts = ", ".join(f"{n} {'DAMAGED' if n in damaged else 'clean'}" for n in names)
    save(env, "loop", data, f"{text}\n\ne2fsck afterwards: {verdicts}")
