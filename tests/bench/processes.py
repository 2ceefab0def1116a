# SPDX-License-Identifier: Apache-2.0
"""Child processes that never outlive the benchmark, and what they have used."""
import contextlib
import ctypes
import os
import signal
import subprocess
import time

PR_SET_PDEATHSIG = 1
TICK = os.sysconf("SC_CLK_TCK")
LIBC = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """Something that the user is told in one sentence."""


def _in_child():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()  # Ctrl-C is for us: we end our children in the right order


def start(argv, **options):
    return subprocess.Popen([str(a) for a in argv], preexec_fn=_in_child, stdin=subprocess.DEVNULL,
                            **options)


def run(argv, timeout=60, check=True):
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, timeout=timeout,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if check and done.returncode != 0:
        raise BenchError(f"{' '.join(map(str, argv))}: {done.stdout.strip()}")
    return done.stdout


def end(process, timeout=10):
    """SIGTERM, and SIGKILL to its whole group when that is not enough."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout)


def tree(pid):
    """The process and all that it has started."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as children:
                    found += [int(child) for child in children.read().split()]
    return found


def cpu_seconds(pid):
    """User and system time of a process and its children."""
    ticks = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            with open(f"/proc/{one}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICK


def _sum_of(path, key):
    with contextlib.suppress(OSError):
        with open(path) as status:
            return sum(int(line.split()[1]) for line in status if line.startswith(key))
    return 0


def rss_kib(pid):
    return sum(_sum_of(f"/proc/{one}/status", "VmRSS:") for one in tree(pid))


def wakeups(pid):
    """Voluntary context switches of all threads of a process and its children."""
    return sum(_sum_of(f"/proc/{one}/task/{task}/status", "voluntary_ctxt_switches:")
               for one in tree(pid) for task in os.listdir(f"/proc/{one}/task"))


def wait_for(what, condition, timeout=30):
    """Looks again until condition() holds; a BenchError that names `what` when it never does."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"timed out waiting for {what}")
        time.sleep(0.01)


def mounts_below(directory):
    with open("/proc/self/mounts") as mounts:
        points = [line.split()[1] for line in mounts]
    return [p for p in reversed(points) if p.startswith(f"{directory}/")]
