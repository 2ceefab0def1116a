# SPDX-License-Identifier: Apache-2.0
"""Many volumes and large tables: commands, restart, memory, lookups."""
import time

import servers
from fio import Job, measure, value
from processes import rss_kib, wakeups
from report import machine, median, number, ratio, save, table

READS = (Job("randread", "4k"), Job("randread", "4k", "libaio", 32))
IDLE_SECONDS = 3
COMMANDS = ("create", "load", "resume")


def timed(work):
    before = time.monotonic()
    work()
    return time.monotonic() - before


def many(env, dmfs, data):
    """Commands one after the other, each waited for, on one connection."""
    count, control = env.volumes, dmfs.control
    file = env.backing_file(0)
    rss = rss_kib(dmfs.process.pid)
    spent = dict.fromkeys(COMMANDS, 0.0)
    for i in range(count):
        name = f"v{i}"
        target = (0, 8, "linear", f"{file} {i % 1000 * 8}")
        spent["create"] += timed(lambda: control.call("create", name=name))
        spent["load"] += timed(lambda: control.load(name, [target]))
        spent["resume"] += timed(lambda: control.call("resume", name=name))
    data["volumes"] = count
    data["create_load_resume_s"] = sum(spent.values())
    data["us_per_command"] = {c: spent[c] * 1e6 / count for c in COMMANDS}
    data["rss_kib_per_volume"] = (rss_kib(dmfs.process.pid) - rss) / count
    data["list_s"] = timed(lambda: control.call("list"))

    seen = wakeups(dmfs.process.pid)
    time.sleep(IDLE_SECONDS)
    data["idle_wakeups_per_s"] = (wakeups(dmfs.process.pid) - seen) / IDLE_SECONDS

    data["stop_s"] = timed(dmfs.stop)
    data["restart_s"] = timed(dmfs.launch_daemon)
    back = dmfs.control.call("list")["devices"]
    data["active_after_restart"] = sum(d["live_table"] and not d["suspended"] for d in back)
    data["rss_kib_per_volume_after_restart"] = (rss_kib(dmfs.process.pid) - rss) / count
    data["remove_all_s"] = timed(lambda: dmfs.control.call("remove_all"))


def large(env, dmfs, data):
    file, count = env.backing_file(0), env.targets
    length = env.size // 512 // count // 8 * 8
    targets = [(i * length, length, "linear", f"{file} {i * length}") for i in range(count)]
    dmfs.control.call("create", name="large")
    rss = rss_kib(dmfs.process.pid)
    data["targets"] = count
    data["load_table_s"] = timed(lambda: dmfs.control.load("large", targets))
    data["resume_table_s"] = timed(lambda: dmfs.control.call("resume", name="large"))
    data["rss_bytes_per_target"] = (rss_kib(dmfs.process.pid) - rss) * 1024 / count
    paths = {"one": dmfs.volume("one", [(0, count * length, "linear", f"{file} 0")]),
             "large": dmfs.mount / "large"}
    data["reads"] = []
    for job in READS:
        runs = {"one": [], "large": []}
        for turn in range(env.rounds):
            for name in ("one", "large") if turn % 2 == 0 else ("large", "one"):
                runs[name].append(value(job, measure(job, paths[name], env.seconds)))
        data["reads"].append({"workload": job.title, "runs": runs,
                              "ratio": ratio(runs["large"], runs["one"])})


def run(env):
    data = {"machine": machine(env)}
    with servers.Dmfs(env, []) as dmfs:
        many(env, dmfs, data)
        large(env, dmfs, data)
    count, targets = f"{data['volumes']:,}", f"{data['targets']:,}"
    rows = [[f"create + load + resume of {count} volumes", number(data["create_load_resume_s"]), "s"]]
    rows += [[f"one {c}", number(us), "µs"] for c, us in data["us_per_command"].items()]
    rows += [
        [f"list of {count}", number(data["list_s"] * 1000), "ms"],
        ["resident memory per idle volume", number(data["rss_kib_per_volume"]), "KiB"],
        ["the same after a restart", number(data["rss_kib_per_volume_after_restart"]), "KiB"],
        ["wake-ups of the idle daemon", number(data["idle_wakeups_per_s"]), "/s"],
        [f"stop with {count} volumes", number(data["stop_s"]), "s"],
        [f"start that brings {data['active_after_restart']:,} back", number(data["restart_s"]), "s"],
        [f"remove_all of {count}", number(data["remove_all_s"]), "s"],
        [f"load of a table of {targets} targets", number(data["load_table_s"]), "s"],
        ["resume with it", number(data["resume_table_s"]), "s"],
        ["resident memory per target", number(data["rss_bytes_per_target"]), "bytes"]]
    for read in data["reads"]:
        both = [number(median(read["runs"][name])) for name in ("large", "one")]
        rows.append([f"{read['workload']}: that table / one target", " / ".join(both),
                     f"= {number(read['ratio'])}"])
    save(env, "volumes", data, table(["", "", ""], rows))
