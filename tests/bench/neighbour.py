# SPDX-License-Identifier: Apache-2.0
"""What another volume's trouble costs its neighbour: 4 KiB reads of disk1, while disk0 is idle,
suspended with held requests, on a file that hangs, or under full load."""
import contextlib
import os
import signal

import servers
from fio import Job, Load, measure
from processes import BenchError, run as command, wait_for
from report import machine, median, number, save, table

READER = Job("randread", "4k")
HELD = Job("randwrite", "4k", "libaio", 250, 8)         # 2,000 requests at once
HANGING = Job("randread", "4k", "libaio", 50, 4)        # 200
FULL = Job("write", "1m", "libaio", 32, 16)


def waiting(env, path):
    """Requests that the kernel has queued or sent and that are not answered, of the whole mount."""
    device = os.stat(path).st_dev
    return int((env.work / "fusectl" / str(os.minor(device)) / "waiting").read_text())


@contextlib.contextmanager
def fill(env, job, path, root):
    """As many requests as the job's queues hold, all of them held. Each job does that twice over,
    and so ends by itself once nothing is held."""
    count = job.depth * job.jobs
    with Load(job, path, None, extra=(f"--number_ios={2 * job.depth}",)) as load:
        wait_for(f"{count} requests to be held", lambda: waiting(env, root) >= count)
        yield load


def alone(env, server):
    return measure(READER, server.paths[1], env.seconds)


def beside_suspended(env, server):
    mine = server.paths[1]
    server.suspend("disk0")
    with fill(env, HELD, server.paths[0], mine) as load:
        result = alone(env, server)
        result["held"] = waiting(env, mine)
        server.resume("disk0")
        load.result()
    return result


def beside_hanging(env, server):
    """disk2 lies on a file of another FUSE daemon, which is stopped."""
    mine = server.paths[1]
    with servers.Floor(env, [env.backing_file(0)]) as below:
        file = below.paths[0]
        disk = server.volume("disk2", [(0, os.stat(file).st_size // 512, "linear", f"{file} 0")])
        os.kill(below.process.pid, signal.SIGSTOP)
        try:
            with fill(env, HANGING, disk, mine) as load:
                result = alone(env, server)
                result["held"] = waiting(env, mine)
                os.kill(below.process.pid, signal.SIGCONT)
                load.result()
        finally:
            os.kill(below.process.pid, signal.SIGCONT)
        server.control.call("remove", name="disk2")
    return result


def beside_load(env, server):
    with Load(FULL, server.paths[0], env.seconds + 2) as load:
        wait_for("the load to begin", lambda: waiting(env, server.paths[1]) >= FULL.jobs // 2)
        result = alone(env, server)
        result["load_mib_s"] = load.result()["mib_s"]
    return result


CASES = (
    (servers.Dmfs, "alone", alone),
    (servers.Dmfs, "another suspended, 2,000 requests held", beside_suspended),
    (servers.Dmfs, "another's file hangs with 200 requests", beside_hanging),
    (servers.Dmfs, "another under full load", beside_load),
    (servers.Floor, "alone", alone),
    (servers.Floor, "another under full load", beside_load),
)


def rounds(env):
    files = [env.backing_file(0), env.backing_file(1)]
    results = [[] for _ in CASES]
    for _ in range(env.rounds):
        for kind in (servers.Dmfs, servers.Floor):
            with kind(env, files) as server:
                for i, (owner, title, case) in enumerate(CASES):
                    if owner is not kind:
                        continue
                    try:
                        results[i].append(case(env, server))
                    except BenchError as error:
                        raise BenchError(f"{kind.name}, {title}: {error}") from None
    return results


def run(env):
    if os.geteuid() != 0:
        raise BenchError("--neighbour needs root, to look into the kernel's queues (fusectl)")
    connections = env.work / "fusectl"
    connections.mkdir()
    command(["mount", "-t", "fusectl", "none", connections])
    try:
        results = rounds(env)
    finally:
        command(["umount", connections])
    data = {"machine": machine(env), "rows": []}
    base = {}
    for (kind, title, _), runs in zip(CASES, results):
        row = {"server": kind.name, "case": title}
        for key in ("iops", "p50_us", "p99_us", "held", "load_mib_s"):
            row[key] = median([r[key] for r in runs if key in r])
        base.setdefault(kind.name, row["p99_us"])
        row["p99/alone"] = row["p99_us"] / base[kind.name]
        data["rows"].append(row)
    keys = ("iops", "p50_us", "p99_us", "p99/alone", "held", "load_mib_s")
    text = table(["a neighbour's randread 4k", "over", "IOPS", "p50 µs", "p99 µs", "p99/alone",
                  "requests out", "load MiB/s"],
                 [[row["case"], row["server"], *(number(row[key]) for key in keys)]
                  for row in data["rows"]])
    save(env, "neighbour", data, text)
