# SPDX-License-Identifier: Apache-2.0
"""The engines of dmfs side by side: what is in memory, what is not, and O_DIRECT backing files. The
file lies in the work directory, which should be on a disk."""
import os

import servers
from fio import Job, measure, value
from processes import BenchError, cpu_seconds
from report import bars, machine, median, number, save, table

ENGINES = ("auto", "inline", "threads", "io_uring")
CACHED, COLD, DIRECT = "in memory", "not in memory", "direct_backing"
ROWS = (
    (CACHED, Job("randread", "4k")), (CACHED, Job("randread", "4k", "libaio", 32)),
    (CACHED, Job("randwrite", "4k")), (CACHED, Job("randwrite", "4k", "libaio", 32)),
    (CACHED, Job("write", "1m", "libaio", 8)),
    (COLD, Job("randread", "4k")), (COLD, Job("randread", "4k", "libaio", 32)),
    (DIRECT, Job("randread", "4k")), (DIRECT, Job("randread", "4k", "libaio", 32)),
    (DIRECT, Job("randwrite", "4k", "libaio", 32)), (DIRECT, Job("write", "1m", "libaio", 8)),
)


def backing(env):
    path = env.work / "engines-file"
    if not path.exists():
        with open(path, "wb") as file:
            for _ in range(env.size >> 20):
                file.write(os.urandom(1 << 20))
    return path


def prepare(path, state):
    """In memory and clean, or clean and not in memory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        if state == CACHED:
            while os.read(fd, 1 << 20):
                pass
        else:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def once(env, engine, state, job):
    path = backing(env)
    prepare(path, state)
    options = [f"engine={engine}"] + (["direct_backing"] if state == DIRECT else [])
    with servers.Dmfs(env, [path], options) as server:
        before = cpu_seconds(server.process.pid)
        result = measure(job, server.paths[0], env.seconds)
        used = cpu_seconds(server.process.pid) - before
        result["cpu_us_per_io"] = used * 1e6 / result["ios"]
    return result


def run(env):
    env.kinds((servers.Dmfs,))
    data = {"machine": machine(env), "rows": []}
    engines = list(ENGINES)
    for state, job in ROWS:
        runs = {engine: [] for engine in engines}
        for turn in range(env.rounds):
            shift = turn % len(engines)
            for engine in engines[shift:] + engines[:shift]:
                try:
                    runs[engine].append(once(env, engine, state, job))
                except BenchError as error:
                    raise BenchError(f"{engine}, {state}, {job.title}: {error}") from None
        row = {"workload": f"{job.title}, {state}", "unit": job.unit, "engines": {
            engine: {"median": median([value(job, r) for r in results]),
                     "runs": [value(job, r) for r in results],
                     "p99_us": median([r["p99_us"] for r in results]),
                     "cpu_us_per_io": median([r["cpu_us_per_io"] for r in results])}
            for engine, results in runs.items()}}
        data["rows"].append(row)
        print(f"{row['workload']:46}" + "  ".join(
            f"{name} {number(e['median'])}" for name, e in row["engines"].items()), flush=True)
    save(env, "engines", data, table(
        ["fio workload", "", *engines], [
            [row["workload"], row["unit"], *(
                f"{number(e['median'])} ({number(e['cpu_us_per_io'])} µs)"
                for e in row["engines"].values())] for row in data["rows"]]), bars(
        "Engines: rates relative to auto", f"medians of {env.rounds} rounds", [
            (row["workload"], [(name, e["median"] / row["engines"]["auto"]["median"],
                                f"{number(e['median'])} {row['unit']}")
                               for name, e in row["engines"].items()]) for row in data["rows"]]))
