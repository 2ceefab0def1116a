# SPDX-License-Identifier: Apache-2.0
"""Runs fio, for so long and no longer, and reads what it says."""
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import time

from processes import BenchError, start

GRACE = 60  # seconds that fio may take beyond its run time


@dataclasses.dataclass(frozen=True)
class Job:
    rw: str
    bs: str
    engine: str = "psync"
    depth: int = 1
    jobs: int = 1
    direct: bool = True
    extra: tuple = ()

    @property
    def title(self):
        how = f"libaio qd{self.depth}" if self.engine == "libaio" else f"{self.engine}"
        many = f", {self.jobs} jobs" if self.jobs > 1 else ", 1 job" if self.depth == 1 else ""
        return f"{self.rw} {self.bs}, {how}{many}" + ("" if self.direct else ", buffered")

    @property
    def unit(self):
        return "MiB/s" if self.bs.endswith("m") else "IOPS"


class Load:
    """A fio that runs; `with` ends it whatever happens."""

    def __init__(self, job, path, seconds, size=None, extra=()):
        argv = ["fio", "--name=bench", f"--filename={path}", f"--rw={job.rw}", f"--bs={job.bs}",
                f"--ioengine={job.engine}", f"--iodepth={job.depth}", f"--numjobs={job.jobs}",
                f"--direct={int(job.direct)}", f"--size={size or os.stat(path).st_size}",
                "--fallocate=none", "--norandommap", "--randrepeat=0", "--group_reporting",
                "--output-format=json", *job.extra, *extra]
        if seconds:
            argv += ["--time_based", f"--runtime={seconds}"]
        self.deadline = time.monotonic() + (seconds or 0) + GRACE
        self.process = start(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)  # what is stuck in the kernel goes when the server does
        self.process.stdout.close()
        self.process.stderr.close()

    def result(self):
        try:
            out, err = self.process.communicate(timeout=max(1, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise BenchError("fio did not end in time") from None
        if self.process.returncode != 0:
            raise BenchError(f"fio: {(err or out).strip()[-500:]}")
        job = json.loads(out[out.index("{"):])["jobs"][0]
        read, write = job["read"], job["write"]
        main = read if read["total_ios"] >= write["total_ios"] else write
        percentile = main["clat_ns"].get("percentile", {})
        if job["error"] or main["total_ios"] == 0:
            raise BenchError(f"fio: error {job['error']}, {main['total_ios']} I/Os")
        return {"iops": read["iops"] + write["iops"],
                "mib_s": (read["bw_bytes"] + write["bw_bytes"]) / 2**20,
                "ios": read["total_ios"] + write["total_ios"],
                "p50_us": percentile.get("50.000000", 0) / 1000,
                "p99_us": percentile.get("99.000000", 0) / 1000}


def measure(job, path, seconds, size=None, extra=()):
    with Load(job, path, seconds, size, extra) as load:
        return load.result()


def value(job, result):
    return result["mib_s"] if job.unit == "MiB/s" else result["iops"]
