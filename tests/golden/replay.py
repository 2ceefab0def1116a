#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Replays a transcript of dmsetup against dmctl, and compares stdout, stderr and exit status.

replay.py TRANSCRIPT WORK-DIR MOUNT: with dmctl in PATH as dmsetup, DMFS_SOCKET set, and in
WORK-DIR the files ram0 to ram5 of 2048 sectors that stand in for the recorder's ram disks. Its loop
devices are files that the transcript makes. bio.py does what the recorder's I/O helper did.

On stderr dmctl may say more than dmsetup did: lines that begin with two spaces. There the kernel's
reason has to be found, which dmsetup left in the kernel's log.
"""

import os
import re
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # leave nothing in the source
from differences import (CONSEQUENCES, DIFFERENCES, JOB_DIFFERENCES, KERNEL_DIFFERENCES, NAMES, NEEDS,
                         NOT_REPLAYED, NOT_REPLAYED_WHOLE, NOT_SAID, SAID_BESIDES)


def run_rules(rules, text):
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text, flags=re.M)
    return text


class Entry:
    def __init__(self, number, command):
        self.number, self.command = number, command
        self.out, self.err, self.kernel, self.status = [], [], [], None
        self.then = None  # a command that clears away what only dmfs has done
        self.here = []  # rules for what it prints, from the transcript itself


def read_transcript(path):
    """The entries: ("section", text), ("quiet", command), ("job", text, lines) or an Entry."""
    entries = []
    here = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file.read().split("\n"), 1):
            last = entries[-1] if entries else None
            if line.startswith("## "):
                entries.append(("section", line[3:]))
            elif line.startswith("~ "):
                entries.append(("quiet", line[2:]))
            elif line.startswith("# job "):
                entries.append(("job", line[6:], []))
            elif line.startswith("! "):
                here.append(tuple(line[2:].split(" -> ")))
            elif line.startswith("+ "):
                entries.append(Entry(number, line[2:]))
                entries[-1].here, here = here, []
            elif isinstance(last, tuple) and last[0] == "job":
                last[2].append(line)
            elif not isinstance(last, Entry):
                continue  # comments at the top, blank lines between the sections
            elif line.startswith("2| "):
                last.err.append(line[3:])
            elif line.startswith("K| "):
                last.kernel.append(line[3:])
            elif line.startswith("rc="):
                last.status = int(line[3:])
            elif last.status is None:
                last.out.append(line)
    return entries


class Shell:
    """One bash for the whole transcript, for descriptors stay open from command to command."""

    SETUP = r"""
        # Where the recorder slept, what it waited for was a deferred removal.
        sleep() {
          local i
          for i in $(seq 250); do
            dmsetup info 2>/dev/null | grep -q 'DEFERRED REMOVE' || return 0
            command sleep 0.02
          done
        }
        open_count() { dmsetup info -c --noheadings -o open "$1" 2>/dev/null; }
        # A file system hears of a close a little later than close() returns.
        close9() {
          local held i
          held=$(open_count "$1")
          exec 9<&-
          for i in $(seq 250); do
            [ "$(open_count "$1")" != "$held" ] && return 0
            command sleep 0.02
          done
        }
        # Of a block device's other values there is no equal.
        blockdev() { [ "$1" != --getsz ] || echo $(($(stat -c %s "$2") / 512)); }
        bio() { python3 -IS "$BIO" "$@"; }
        # Mirrors go on by themselves: until the status says so; until it says the same for a while.
        settle() {
          local i
          for i in $(seq 500); do
            case $(dmsetup status "$1" 2>/dev/null) in "" | *" $2 "*) break ;; esac
            command sleep 0.02
          done
          # The log calls it clean a little later.
          case $(dmsetup table "$1" 2>/dev/null) in *" disk "*) steady sha256sum ram2 ;; esac
        }
        steady() {
          local now last=? same=0 i
          for i in $(seq 500); do
            now=$("$@" 2>/dev/null)
            # In sync, and all alive: nothing goes on.
            grep -qE ' mirror .* ([0-9]+)/\1 1 A+ ' <<<"$now" && return 0
            [ "$now" = "$last" ] && same=$((same + 1)) || same=0
            last=$now
            [ $same -lt 7 ] || return 0
            command sleep 0.02
          done
        }
        hd() { steady sha256sum "$1"; head -c 4096 "$1" | hexdump -C; }
    """

    def __init__(self, work):
        self.out, self.err = work + "/.out", work + "/.err"
        self.work = work
        self.bash = subprocess.Popen(["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     text=True, cwd=work)
        self.held = "?"
        self._do("BIO=%s/bio.py\n%s\n" % (os.path.dirname(os.path.abspath(__file__)), self.SETUP))

    def _do(self, text):
        assert self.bash.stdin and self.bash.stdout
        self.bash.stdin.write(text + '\necho "done $?"\n')
        self.bash.stdin.flush()
        return int(self.bash.stdout.readline().split()[1])

    def run(self, command):
        held = re.search(r"exec 9<\S*/([^/;]+);", command)
        self.held = held.group(1) if held else self.held
        command = command.replace("exec 9<&-", "close9 " + self.held)
        status = self._do("{ %s\n} </dev/null >%s 2>%s" % (command, self.out, self.err))
        with open(self.out, encoding="utf-8") as out, open(self.err, encoding="utf-8") as err:
            return status, out.read(), err.read()

    def job(self, name, command):
        """Starts it, and waits until it has ended or waits for the daemon."""
        path = "%s/.job.%s" % (self.work, name)
        begins = path + ".begins"
        if os.path.exists(begins):
            os.remove(begins)
        open(path, "w", encoding="utf-8").close()
        self._do('( export BIO_BEGINS=%s; %s; echo "bg-rc=$?" ) </dev/null >%s 2>&1 &\n'
                 'echo $! >%s.pid' % (begins, command, path, path))
        with open(path + ".pid", encoding="utf-8") as file:
            pid = int(file.read())
        asleep = 0
        end = time.monotonic() + 20
        while asleep < 3 and "bg-rc" not in self.job_output(name) and time.monotonic() < end:
            begun = os.path.exists(begins) or not command.startswith("bio ")
            asleep = asleep + 1 if begun and last_descendant_sleeps(pid) else 0
            time.sleep(0.01)
        self.run("dmsetup version")  # the daemon has heard of it

    def job_output(self, name):
        with open("%s/.job.%s" % (self.work, name), encoding="utf-8") as file:
            return file.read()

    def end(self):
        self.bash.stdin.close()
        return self.bash.wait()


def last_descendant_sleeps(pid):
    """Whether the process that a shell waits for, through any number of shells, waits too."""
    try:
        depth = 0
        while True:
            with open("/proc/%d/task/%d/children" % (pid, pid), encoding="utf-8") as file:
                children = file.read().split()
            if not children:
                break
            pid, depth = int(children[-1]), depth + 1
        with open("/proc/%d/stat" % pid, encoding="utf-8") as file:
            return depth > 0 and file.read().rsplit(")", 1)[1].split()[0] in "SD"
    except OSError:
        return False


class Replay:
    def __init__(self, transcript, work, mount):
        self.shell = Shell(work)
        self.work, self.mount = work, mount
        self.targets = re.findall(r"^(\S+) +v", self.shell.run("dmsetup targets")[1], re.M)
        self.skips = {}  # by the kind of section, "==" or "--": why it is skipped
        self.opens_before_jobs = None
        self.jobs = {}  # since then, by name
        self.running_jobs = set()
        self.failures = self.compared = 0
        # What the recorder called its devices, and what they are here.
        here, there = NAMES.get(transcript, ([], []))
        self.to_here = here + [
            # Held for so long that a slow machine sees it held; a suspend ends it.
            (r"( delay /dev/ram0 0 [23])000\b", r"\g<1>0000"),
            (r"/dev/ram([0-5])\b", work + r"/ram\1"),
            (r"/dev/(loop\d+)\b", work + r"/\1"),
            # What had it open ends with its read, but a file system hears of that a little later.
            (r"remove -f hi;", "remove -f --retry hi;"),
            # A regular file is cut off there by dd, a block device is not.
            (r" seek=1024 conv=fsync\b", " seek=1024 conv=fsync,notrunc"),
            # As long, but a flush is not: none reached a ram disk.
            (r"( delay (\S+/ram1) 0 0 \2 0 )2000\b", r"\g<1>4000 \2 0 0"),
            (r"/dev/mapper/", mount + "/"),
            (r"/dev/mapper\b", mount),
            (r"/tmp/tbl\b", work + "/tbl"),
            (r"/tmp/ynode\b", mount + "/y"),
            (r"(linear |echo \"0 1024 linear )1:([0-5])\b", r"\1%s/ram\2" % work),
        ]
        self.expected = there + self.to_here + [
            (r"(?<!:)\b1:([0-5])(?=[ ,;]|$)", work + r"/ram\1"),
            (r"\(1, ([0-5])\)", r"(%s/ram\1)" % work),
            (r"(?<![\w/])ram([0-5])\b", work + r"/ram\1"),
            (r"\b7:(\d+)(?=[ ,;]|$)", work + r"/loop\1"),
            (r"linear 253:2 0", "linear multi 0"),
            (r"(/ram0( 0)?) 253:0\b", r"\1 slow"),
            (r"disk( 2)? 253:0\b", r"disk\1 errlog"),
            (r"disk( 2)? 253:2\b", r"disk\1 lg"),
            (r"striped 2( 16)? 253:0( 0)? 253:1", r"striped 2\1 u1\2 u2"),
            (r"/loop0 (0 )?253:0", r"/loop0 \1fl"),
            (r"(unstriped \d+ \d+ \d+) 253:0", r"\1 s"),
        ]

    def fail(self, entry, what, want, got):
        self.failures += 1
        print("line %d: + %s\n  %s\n    expected: %s\n    got:      %s" %
              (entry.number, entry.command, what, "\n              ".join(want),
               "\n              ".join(got)))

    def enter_section(self, title):
        kind = title[:2]
        if kind == "==":
            self.skips = {}
        self.skips.pop(kind, None)
        for pattern, target in NEEDS:
            if re.search(pattern, title) and target not in self.targets:
                self.skips[kind] = target
                print("SKIPPED: %s: no target %s yet" % (title, target))

    def open_counts(self):
        """By device; of what it had open a file system is told a little later than the close."""
        out = self.shell.run("dmsetup info -c --noheadings --separator / -o name,open")[1]
        return dict(line.rsplit("/", 1) for line in out.split("\n") if "/" in line)

    def settle(self, before):
        """Until nothing of these is open more often."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            now = self.open_counts()
            if all(int(now.get(name, 0)) <= int(count) for name, count in before.items()):
                return
            time.sleep(0.01)

    def settle_jobs(self):
        """What jobs had open, save what those have that still run. Other counts follow the tables."""
        opened = {}
        for name, count in (self.opens_before_jobs or {}).items():
            opens = re.compile(re.escape("%s/%s" % (self.mount, name)) + r"(?=[\s;]|$)")
            if any(opens.search(command) for command in self.jobs.values()):
                still = sum(bool(opens.search(self.jobs[job])) for job in self.running_jobs)
                opened[name] = int(count) + still
        self.settle(opened)
        if not self.running_jobs:
            self.opens_before_jobs, self.jobs = None, {}

    def run(self, command):
        does_io = re.search(r"(?<!queue_mode )\b(bio|dd) ", command)
        before = self.open_counts() if does_io else {}
        result = self.shell.run(run_rules(self.to_here, command))
        if before:
            self.settle(before)
        return result

    def play(self, entry):
        if self.skips:
            return
        job = re.match(r"\((.*)\) &    # background job (\w+)$", entry.command)
        if job:
            self.opens_before_jobs = self.opens_before_jobs or self.open_counts()
            command = run_rules(self.to_here, job.group(1))
            self.jobs[job.group(2)] = command
            self.running_jobs.add(job.group(2))
            self.shell.job(job.group(2), command)
            return
        if any(re.search(rule, entry.command) for rule, _ in NOT_REPLAYED_WHOLE):
            return
        entry = differently(entry)
        parts = [p for p in re.split(r"(?<=;) ", entry.command)]
        left = [p for p in parts
                if not any(re.search(rule, p) for rule, _ in NOT_REPLAYED)]
        status, out, err = self.run(" ".join(left) or ":")
        if len(left) < len(parts):
            return
        self.compared += 1
        for pattern, rules in CONSEQUENCES:
            if re.search(pattern, entry.command):
                self.expected = self.expected + rules
        want = self.wanted(entry.out, entry.rules)
        got = run_rules([(SAID_BESIDES, "")], without_times(out)).split("\n")[:-1]
        if "info -c" in entry.command and self.work in out:
            # Paths are longer than numbers, so columns are wider.
            want, got = ([re.sub(" +", " ", line).strip() for line in lines] for lines in (want, got))
        if want != got:
            self.fail(entry, "stdout", want, got)
        if status != entry.status:
            self.fail(entry, "exit status", [str(entry.status)], [str(status)])
        self.compare_errors(entry, without_times(err).split("\n")[:-1])
        if entry.then:
            self.shell.run(entry.then)

    def wanted(self, lines, rules=()):
        text = without_times("".join(line + "\n" for line in lines))
        return run_rules([*self.expected, (NOT_SAID, ""), *rules], text).split("\n")[:-1]

    def compare_errors(self, entry, got):
        want = self.wanted(entry.err, entry.err_rules)
        if "Usage:" in want:  # ours is ours
            want = want[:want.index("Usage:") + 1]
            got = got[:got.index("Usage:") + 1] if "Usage:" in got else got
        plain = [line for line in got if not line.startswith("  ")]
        said = " ".join(line for line in got if line.startswith("  "))
        if entry.got_rules:
            plain = run_rules(entry.got_rules, "\n".join(plain) + "\n").split("\n")[:-1]
        if want != plain:
            self.fail(entry, "stderr", want, got)
        for line in entry.kernel:
            reason = re.match(r"device-mapper: table: 253:\d+: (.*?)(?: \(-[A-Z]+\))?$", line)
            if re.match(r"dmsetup message [^;]*$", entry.command):
                reason = re.match(r"device-mapper: (dust: .*|multipath: (?!253:).*)", line)
            if reason and entry.status and reason.group(1) not in said and not (
                    "too small" in line and line.split(" ", 3)[3].split(" ", 1)[1] in said):
                self.fail(entry, "the kernel's reason", [reason.group(1)], [said])

    def job_state(self, text, lines):
        if self.skips:
            return
        name = re.match(r"\w+", text).group(0)
        text = run_rules(JOB_DIFFERENCES, text)
        entry = Entry(0, "job " + text)
        if "running" in text or "STILL BLOCKED" in text:
            # It is seen where it waits, lest what comes next overtakes it.
            end = time.monotonic() + 10
            while (re.search(r" delay 0 0 0$", self.shell.run("dmsetup status")[1], re.M)
                   and time.monotonic() < end):
                time.sleep(0.02)
            if "bg-rc" in self.shell.job_output(name):
                self.fail(entry, "job", ["still running"], [self.shell.job_output(name)])
            return
        end = time.monotonic() + 20
        while "bg-rc" not in self.shell.job_output(name) and time.monotonic() < end:
            time.sleep(0.02)
        got = self.shell.job_output(name).split("\n")[:-1]
        at_once = re.search(r": finished: (.*);$", text)
        want = at_once.group(1).split(";") if at_once else [line for line in lines if line]
        got = [line for line in got if not line.startswith("  ")]
        if got != want:
            self.fail(entry, "job", want, got)
        self.running_jobs.discard(name)
        self.settle_jobs()


def without_times(text):
    """Of dd, and of what the recorder measured."""
    text = re.sub(r" copied, .*", " copied", text)
    # historical-service-time's, once there was I/O.
    text = re.sub(r"\b\d+ 0 \d{7,}(?= )", "T 0 T", text)
    return re.sub(r"^(suspend took )?about .*$", "", text, flags=re.M)


def differently(entry):
    changed = Entry(entry.number, entry.command)
    changed.__dict__.update(entry.__dict__, rules=list(entry.here), err_rules=[], got_rules=[])
    changed.status = int(run_rules(entry.here, "rc=%d" % entry.status)[3:])
    by_log = [(instead, re.search(pattern, entry.command)) for log, pattern, instead
              in KERNEL_DIFFERENCES if any(log in line for line in entry.kernel)]
    by_command = [(instead, re.search(pattern, entry.command)) for pattern, instead in DIFFERENCES]
    for instead, found in by_log + by_command:
        if found:
            changed.__dict__.update(instead)
            if "err" in instead:
                changed.err = [found.expand(line) for line in instead["err"]]
            if "then" in instead:
                changed.then = found.expand(instead["then"])
    return changed


def main():
    transcript, work, mount = sys.argv[1:]
    name = os.path.splitext(os.path.basename(transcript))[0]
    replay = Replay(name, os.path.abspath(work), os.path.abspath(mount))
    for entry in read_transcript(transcript):
        if isinstance(entry, Entry):
            replay.play(entry)
        elif entry[0] == "section":
            replay.enter_section(entry[1])
        elif entry[0] == "quiet":  # also where skipped: a later section may rely on it
            replay.run(entry[1])
        elif entry[0] == "job":
            replay.job_state(entry[1], entry[2])
    replay.shell.end()
    print("%s: %d commands compared, %d differences" %
          (os.path.basename(transcript), replay.compared, replay.failures))
    return 1 if replay.failures or not replay.compared else 0


if __name__ == "__main__":
    sys.exit(main())
