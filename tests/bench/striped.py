# SPDX-License-Identifier: Apache-2.0
"""Striped over four files, and bios split in two, against a linear volume over one file."""
import servers
from fio import Job, measure, value
from report import machine, median, number, ratio, save, table

CHUNK = 128  # sectors
HALF = 64    # a bio of CHUNK sectors is cut in two here

IN_CHUNK = (Job("randread", "4k"), Job("randread", "4k", "libaio", 32),
            Job("randwrite", "4k", "libaio", 32), Job("randread", "64k"),
            Job("randwrite", "64k"), Job("randread", "64k", "libaio", 8))
SPLIT = (Job("randread", "64k"), Job("randwrite", "64k"), Job("randread", "64k", "libaio", 8),
         Job("randwrite", "64k", "libaio", 8))
CASES = ([(job, ("linear", "striped")) for job in IN_CHUNK] +
         [(job, ("linear", "split on two targets", "split on two stripes")) for job in SPLIT])


def layouts(env, dmfs):
    """Every bio of CHUNK sectors, aligned to its size, is split by the last two."""
    sectors = env.size // 512
    stripes = [env.backing_file(i, env.size // 4) for i in range(1, 5)]
    words = " ".join(f"{file} 0" for file in stripes)
    halves = [(at, HALF, "linear", f"{env.backing_file(0)} {at}") for at in range(0, sectors, HALF)]
    return {
        "linear": dmfs.paths[0],
        "striped": dmfs.volume("striped", [(0, sectors, "striped", f"4 {CHUNK} {words}")]),
        "split on two targets": dmfs.volume("halves", halves),
        "split on two stripes": dmfs.volume("stripes", [(0, sectors, "striped", f"4 {HALF} {words}")]),
    }


def run(env):
    data = {"machine": machine(env), "rows": []}
    with servers.Dmfs(env, [env.backing_file(0)]) as dmfs:
        paths = layouts(env, dmfs)
        for job, kinds in CASES:
            runs = {kind: [] for kind in kinds}
            for turn in range(env.rounds):
                for i in range(len(kinds)):
                    kind = kinds[(turn + i) % len(kinds)]
                    runs[kind].append(value(job, measure(job, paths[kind], env.seconds)))
            data["rows"].append({"workload": job.title, "unit": job.unit, "runs": runs,
                                 "ratios": {k: ratio(runs[k], runs["linear"]) for k in kinds[1:]}})
    text = table(["fio workload", "layout", "linear", "this", "this/linear"],
                 [[row["workload"], kind, number(median(row["runs"]["linear"])),
                   number(median(row["runs"][kind])), number(of_linear)]
                  for row in data["rows"] for kind, of_linear in row["ratios"].items()])
    save(env, "striped", data, text)
