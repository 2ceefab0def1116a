#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Replays a transcript of dmsetup against dmctl, and compares stdout, stderr and exit status.

replay.py TRANSCRIPT WORK-DIR MOUNT: with dmctl in PATH as dmsetup, DMFS_SOCKET set, and in
WORK-DIR the files ram0 to ram3 of 2048 sectors that stand in for the recorder's ram disks.

On stderr dmctl may say more than dmsetup did: lines that begin with two spaces. There the kernel's
reason has to be found, which dmsetup left in the kernel's log.
"""

import os
import re
import subprocess
import sys
import time

# Commands that are not replayed: they need block devices or the recorder's I/O helper. What they
# do to the state of the devices is done all the same.
NOT_REPLAYED = [
    (r"^blockdev --(get|set)r[ow]", "ioctls of block devices"),
    (r"^bio ", "the recorder's I/O helper; the other scenarios do I/O"),
    (r"^ls -l /dev/", "nodes of block devices"),
]


# Where dmfs differs on purpose: (pattern of the command, what is printed instead). Each with its
# reason; a command that is not here has to print what dmsetup printed.
DIFFERENCES = [
    (r"^dmsetup version$", {"out": ["Library version:   0.1.0 (dmfs)",
                                    "Driver version:    4.47.0"]}),
    (r"^dmsetup targets$", {"out": [
        "dust             v1.0.0", "error            v1.5.0", "flakey           v1.5.0",
        "hang             v1.0.0", "linear           v1.4.0", "striped          v1.6.0",
        "unstriped        v1.1.0", "zero             v1.1.0"]}),
    # Linux 6.12 refuses these names, and so does dmfs.
    (r"create (\.|\.\.|control) ", {"status": 1, "err": [
        r"device-mapper: create ioctl on \1  failed: Invalid argument", "Command failed."]}),
    # Refused at once instead of when the device has been made.
    (r"create m3 -j 99", {"out": [], "status": 1, "err": [
        "device-mapper: create ioctl on m3 (99:5) failed: No such device or address",
        "Command failed.", "Device does not exist.", "Command failed."]}),
    # Linux 6.12 says ENOENT; other things that are not a device have an errno of their own.
    (r"'[^']*(linear|striped|flakey) .*\bnosuch 0", {"err": [
        "device-mapper: reload ioctl on x (253:0) failed: No such file or directory",
        "Command failed."]}),
    (r"linear /dev/null 0", {"err": [
        "device-mapper: reload ioctl on x (253:0) failed: Block device required",
        "Command failed."]}),
    (r"linear /tmp 0", {"err": [
        "device-mapper: reload ioctl on x (253:0) failed: Is a directory", "Command failed."]}),
    # A table on its own device is refused (Linux 6.12), and so is a longer cycle.
    (r"reload a --table .*/(a|loop1) 0\"", {"err": [
        "device-mapper: reload ioctl on a  failed: Too many levels of symbolic links",
        "Command failed."]}),
    (r"reload a --table .*/a 0\"$", {"status": 1}),
    # Here a device without a table has a file too, and there is no control node.
    (r"^ls /dev/mapper; dmsetup info lin2new", {"rules": [(r"^control$", "empty")]}),
    (r"^exec 9</dev/mapper/lin; dmsetup remove_all", {"rules": [(r"^control\n", "")]}),
    (r"blkdevname,blkdevs_used$", {"status": 0, "err": [], "rules": [
        (r"^lin ", "empty ---w None Active Writeable 253:9 dm-9 \nlin ")]}),
    # dmsetup cannot do this: it asks the kernel for a device with an empty name.
    (r"^dmsetup rename -u NEW-UUID lin2$", {"status": 0, "err": []}),
    (r"^dmsetup rename lin2new lin2$", {"status": 1, "err": [
        "device-mapper: rename ioctl on lin2new  failed: No such device or address",
        "Command failed."]}),
    # Linux 6.12 has this feature of flakey, and so does dmfs.
    (r"flakey /dev/ram0 0 1 1 1 error_reads'", {"status": 0, "err": [], "then": "dmsetup remove x"}),
    # The kernel lets 2^64 wrap to 0.
    (r"linear /dev/ram0 18446744073709551616", {"status": 1, "err": [
        "device-mapper: reload ioctl on x (253:0) failed: Invalid argument", "Command failed."],
        "kernel": ["device-mapper: table: 253:0: linear: Invalid device sector (-EINVAL)"]}),
]
# The same for what follows from a difference: rules for what is expected from then on.
CONSEQUENCES = [
    # The three devices that were refused are not listed, and the next ones get their numbers.
    (r"create control ", [
        (r"^(\.|\.\.|control)(\t|: ).*\n?", ""), (r"^control\n?", ""),
        (r"253(:|, )4\b", r"253\g<1>1"), (r"253(:|, )5\b", r"253\g<1>2")]),
]
# dmsetup opens the node of a device to learn its read-ahead; dmctl asks the daemon.
NOT_SAID = r"^.*: open failed: No such .*\n?"


def run_rules(rules, text):
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text, flags=re.M)
    return text


class Entry:
    def __init__(self, number, command):
        self.number, self.command = number, command
        self.out, self.err, self.kernel, self.status = [], [], [], None
        self.then = None  # a command that clears away what only dmfs has done


def read_transcript(path):
    """The entries: ("section", text), ("quiet", command), ("job", text, lines) or an Entry."""
    entries = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file.read().split("\n"), 1):
            last = entries[-1] if entries else None
            if line.startswith("## "):
                entries.append(("section", line[3:]))
            elif line.startswith("~ "):
                entries.append(("quiet", line[2:]))
            elif line.startswith("# job "):
                entries.append(("job", line[6:], []))
            elif line.startswith("+ "):
                entries.append(Entry(number, line[2:]))
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
        blockdev() { [ "$1" = --getsz ] && echo $(($(stat -c %s "$2") / 512)); }
    """

    def __init__(self, work):
        self.out, self.err = work + "/.out", work + "/.err"
        self.work = work
        self.bash = subprocess.Popen(["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     text=True, cwd=work)
        self.held = "?"
        self._do(self.SETUP + "\n")

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
        self._do('( %s; echo "bg-rc=$?" ) </dev/null >%s/.job.%s 2>&1 &' %
                 (command, self.work, name))
        self.run("dmsetup version")

    def job_output(self, name):
        with open("%s/.job.%s" % (self.work, name), encoding="utf-8") as file:
            return file.read()

    def end(self):
        self.bash.stdin.close()
        return self.bash.wait()


class Replay:
    def __init__(self, work, mount):
        self.shell = Shell(work)
        self.work, self.mount = work, mount
        self.failures = self.compared = 0
        # What the recorder called its devices, and what they are here.
        self.to_here = [
            (r"/dev/ram([0-3])\b", work + r"/ram\1"),
            (r"/dev/mapper/", mount + "/"),
            (r"/dev/mapper\b", mount),
            (r"/tmp/tbl\b", work + "/tbl"),
            (r"(linear |echo \"0 1024 linear )1:([0-3])\b", r"\1%s/ram\2" % work),
        ]
        self.expected = self.to_here + [
            (r"\b1:([0-3])(?=[ ,;]|$)", work + r"/ram\1"),
            (r"\(1, ([0-3])\)", r"(%s/ram\1)" % work),
            (r"(?<![\w/])ram([0-3])\b", work + r"/ram\1"),
            (r"linear 253:2 0", "linear multi 0"),
        ]

    def fail(self, entry, what, want, got):
        self.failures += 1
        print("line %d: + %s\n  %s\n    expected: %s\n    got:      %s" %
              (entry.number, entry.command, what, "\n              ".join(want),
               "\n              ".join(got)))

    def play(self, entry):
        job = re.match(r"\((.*)\) &    # background job (\w+)$", entry.command)
        if job:
            self.shell.job(job.group(2), run_rules(self.to_here, job.group(1)))
            return
        entry = differently(entry)
        parts = [p for p in re.split(r"(?<=;) ", entry.command)]
        left = [p for p in parts
                if not any(re.search(rule, p) for rule, _ in NOT_REPLAYED)]
        status, out, err = self.shell.run(run_rules(self.to_here, " ".join(left) or ":"))
        if len(left) < len(parts):
            return
        self.compared += 1
        for pattern, rules in CONSEQUENCES:
            if re.search(pattern, entry.command):
                self.expected = self.expected + rules
        want = self.wanted(entry.out, entry.rules)
        got = out.split("\n")[:-1]
        if "info -c" in entry.command and self.work in out:
            # Paths are longer than numbers, so columns are wider.
            want, got = ([re.sub(" +", " ", line).strip() for line in lines] for lines in (want, got))
        if want != got:
            self.fail(entry, "stdout", want, got)
        if status != entry.status:
            self.fail(entry, "exit status", [str(entry.status)], [str(status)])
        self.compare_errors(entry, err.split("\n")[:-1])
        if entry.then:
            self.shell.run(entry.then)

    def wanted(self, lines, rules=()):
        text = "".join(line + "\n" for line in lines)
        return run_rules([*self.expected, (NOT_SAID, ""), *rules], text).split("\n")[:-1]

    def compare_errors(self, entry, got):
        want = self.wanted(entry.err)
        if "Usage:" in want:  # ours is ours
            want = want[:want.index("Usage:") + 1]
            got = got[:got.index("Usage:") + 1] if "Usage:" in got else got
        plain = [line for line in got if not line.startswith("  ")]
        said = " ".join(line for line in got if line.startswith("  "))
        if want != plain:
            self.fail(entry, "stderr", want, got)
        for line in entry.kernel:
            reason = re.match(r"device-mapper: table: 253:\d+: (.*?)(?: \(-[A-Z]+\))?$", line)
            if reason and entry.status and reason.group(1) not in said and not (
                    "too small" in line and line.split(" ", 3)[3].split(" ", 1)[1] in said):
                self.fail(entry, "the kernel's reason", [reason.group(1)], [said])

    def job_state(self, text, lines):
        name = re.match(r"\w+", text).group(0)
        entry = Entry(0, "job " + text)
        if "running" in text or "STILL BLOCKED" in text:
            if "bg-rc" in self.shell.job_output(name):
                self.fail(entry, "job", ["still running"], [self.shell.job_output(name)])
            return
        end = time.monotonic() + 20
        while "bg-rc" not in self.shell.job_output(name) and time.monotonic() < end:
            time.sleep(0.02)
        got = self.shell.job_output(name).split("\n")[:-1]
        want = [line for line in lines if line]
        if got != want:
            self.fail(entry, "job", want, got)


def differently(entry):
    changed = Entry(entry.number, entry.command)
    changed.__dict__.update(entry.__dict__, rules=[])
    for pattern, instead in DIFFERENCES:
        found = re.search(pattern, entry.command)
        if found:
            changed.__dict__.update(instead)
            if "err" in instead:
                changed.err = [found.expand(line) for line in instead["err"]]
    return changed


def main():
    transcript, work, mount = sys.argv[1:]
    replay = Replay(os.path.abspath(work), os.path.abspath(mount))
    for entry in read_transcript(transcript):
        if isinstance(entry, Entry):
            replay.play(entry)
        elif entry[0] == "quiet":
            replay.shell.run(run_rules(replay.to_here, entry[1]))
        elif entry[0] == "job":
            replay.job_state(entry[1], entry[2])
    replay.shell.end()
    print("%s: %d commands compared, %d differences" %
          (os.path.basename(transcript), replay.compared, replay.failures))
    return 1 if replay.failures or not replay.compared else 0


if __name__ == "__main__":
    sys.exit(main())
