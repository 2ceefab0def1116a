# SPDX-License-Identifier: Apache-2.0
"""The table: ten workloads over floor, peers and dmfs, in turn, several rounds."""
import servers
from fio import Job, measure, value
from processes import BenchError, cpu_seconds, rss_kib
from report import bars, machine, median, number, ratio, save, table

ROWS = (
    Job("randread", "4k"), Job("randwrite", "4k"),
    Job("randread", "4k", jobs=16), Job("randwrite", "4k", jobs=16),
    Job("randread", "4k", "libaio", 32), Job("randwrite", "4k", "libaio", 32),
    Job("read", "1m"), Job("write", "1m"),
    Job("read", "1m", "libaio", 8), Job("write", "1m", "libaio", 8),
)
PEERS = ("qemu-storage-daemon", "nbdfuse")


def once(env, kind, job):
    with kind(env, [env.backing_file(0)]) as server:
        before = cpu_seconds(server.process.pid)
        result = measure(job, server.paths[0], env.seconds)
        used = cpu_seconds(server.process.pid) - before
        result["cpu_us_per_io"] = used * 1e6 / result["ios"]
        result["rss_kib"] = rss_kib(server.process.pid)
    return result


def run(env):
    kinds = env.kinds(servers.ALL)
    rows = [ROWS[i - 1] for i in env.rows] if env.rows else ROWS
    data = {"machine": machine(env), "rows": []}
    for job in rows:
        runs = {kind.name: [] for kind in kinds}
        for turn in range(env.rounds):
            shift = turn % len(kinds)
            for kind in kinds[shift:] + kinds[:shift]:
                try:
                    runs[kind.name].append(once(env, kind, job))
                except BenchError as error:
                    raise BenchError(f"{kind.name}, {job.title}: {error}") from None
        data["rows"].append(summary(job, runs))
        print(f"{job.title:30}" + "  ".join(
            f"{name} {number(s['median'])}" for name, s in data["rows"][-1]["servers"].items()),
            flush=True)
    save(env, "rates", data, "\n\n".join([rates_table(data), cost_table(data)]), chart(data))


def summary(job, runs):
    row = {"workload": job.title, "unit": job.unit, "servers": {}}
    for name, results in runs.items():
        values = [value(job, r) for r in results]
        row["servers"][name] = {
            "median": median(values), "runs": values,
            **{key: median([r[key] for r in results])
               for key in ("p50_us", "p99_us", "cpu_us_per_io", "rss_kib")}}
    all_runs = {name: server["runs"] for name, server in row["servers"].items()}
    if "dmfs" in all_runs and "floor" in all_runs:
        row["dmfs/floor"] = ratio(all_runs["dmfs"], all_runs["floor"])
    peers = [name for name in PEERS if name in all_runs]
    if "dmfs" in all_runs and peers:
        row["better_peer"] = max(peers, key=lambda name: median(all_runs[name]))
        row["dmfs/better peer"] = ratio(all_runs["dmfs"], all_runs[row["better_peer"]])
    return row


def rates_table(data):
    names = list(data["rows"][0]["servers"])
    ratios = [key for key in ("dmfs/floor", "dmfs/better peer") if key in data["rows"][0]]
    return table(["fio workload", "", *names, *ratios],
                 [[row["workload"], row["unit"],
                   *(number(row["servers"][n]["median"]) for n in names),
                   *(number(row[r]) for r in ratios)] for row in data["rows"]])


def cost_table(data):
    names = list(data["rows"][0]["servers"])
    head = [f"{n}: CPU µs per I/O / RSS MiB / p99 µs" for n in names]
    return table(["fio workload", *head], [
        [row["workload"]] + [
            " / ".join(map(number, (s["cpu_us_per_io"], s["rss_kib"] / 1024, s["p99_us"])))
            for s in (row["servers"][n] for n in names)] for row in data["rows"]])


def chart(data):
    groups = []
    for row in data["rows"]:
        base = row["servers"].get("floor", next(iter(row["servers"].values())))["median"]
        groups.append((row["workload"], [
            (name, s["median"] / base, f"{number(s['median'])} {row['unit']}")
            for name, s in row["servers"].items()]))
    m = data["machine"]
    return bars("What a volume costs: rates relative to the floor of FUSE",
                f"{m['cpus']} x {m['cpu']}, Linux {m['kernel']}, medians of {m['rounds']} rounds of "
                f"{m['seconds']} s, {m['date']}", groups)
