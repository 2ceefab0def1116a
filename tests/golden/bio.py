#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bio: one I/O on a file, exactly as asked; prints the result, as the recorder's helper did.

bio r FILE SECTOR COUNT            reads, and says whose sectors it found
bio l FILE SECTOR COUNT            the same, one sector at a time: errors too
bio w FILE SECTOR COUNT TAG [fua]  writes sectors that carry the tag and their number ('0': zeroes)
bio f FILE                         fsync
bio d|z|s FILE SECTOR COUNT        discard (punch hole), write zeroes, secure discard (not for files)

A sector with tag T and number N is the 16 bytes "T%014x\\n" 32 times over. Reads and writes are
O_DIRECT where the file system has that.
"""

import errno
import mmap
import os
import sys

SECTOR = 512
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16


def pattern(tag, number):
    return (b"%c%014x\n" % (ord(tag), number)) * 32


def decode(data):
    """What a sector holds: ("Z",), ("tag", tag, number), or ("?", description)."""
    if not any(data):
        return ("Z",)
    try:
        number = int(data[1:15], 16) if data[1:15].isalnum() else None
    except ValueError:
        number = None
    if data[15:16] == b"\n" and number is not None:
        want = data[:16] * 32
        if data == want and data[:1] not in (b"Z", b"?", b"!"):
            return ("tag", data[:1], number)
        want = pattern(chr(data[0]), number)
        changed = [i for i in range(SECTOR) if data[i] != want[i]]
        text = b"%c:%d-with-%d-bytes-changed-first@%d=0x%02x" % (
            data[0], number, len(changed), changed[0], data[changed[0]])
        return ("?", text.split(b"\0")[0])  # a string of the recorder's ends at a zero
    if data == data[:1] * SECTOR:
        return ("?", b"byte0x%02x" % data[0])
    value = 2166136261
    for byte in data:
        value = ((value ^ byte) * 16777619) & 0xffffffff
    return ("?", b"fnv%08x" % value)


class Runs:
    """Sectors in a row that hold the same, or go on counting, are printed as one."""

    def __init__(self):
        self.runs = []

    def add(self, what):
        last = self.runs[-1] if self.runs else None
        if last and what[0] == "tag" and last["what"][:2] == what[:2]:
            if what[2] == last["end"] + 1:
                last["end"] = what[2]
                return
        elif last and what[0] != "tag" and last["what"] == what:
            last["count"] += 1
            return
        self.runs.append({"what": what, "count": 1, "end": what[2] if what[0] == "tag" else 0})

    def text(self):
        out = b""
        for run in self.runs:
            what, count = run["what"], run["count"]
            if what[0] == "Z":
                out += b" zero*%d" % count
            elif what[0] == "?":
                out += b" ?%s*%d" % (what[1], count)
            elif what[0] == "!":
                out += b" ERR(%s)*%d" % (what[1], count)
            elif what[2] == run["end"]:
                out += b" %s:%d" % (what[1], what[2])
            else:
                out += b" %s:%d..%d" % (what[1], what[2], run["end"])
        return out


def say(text):
    sys.stdout.buffer.write((text if isinstance(text, bytes) else text.encode()) + b"\n")


def reason(error):
    return "%s (%d)" % (os.strerror(error), error)


def open_direct(path, flags):
    try:
        return os.open(path, flags | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags)


def buffer_of(count):
    return memoryview(mmap.mmap(-1, max(count, 1) * SECTOR))[:count * SECTOR]  # page-aligned


def read(fd, sector, count):
    memory = buffer_of(count)
    try:
        done = os.preadv(fd, [memory], sector * SECTOR)
    except OSError as error:
        say("read %d+%d: %s" % (sector, count, reason(error.errno)))
        return 1
    runs = Runs()
    for at in range(0, done // SECTOR * SECTOR, SECTOR):
        runs.add(decode(bytes(memory[at:at + SECTOR])))
    say(b"read %d+%d: %d bytes:" % (sector, count, done) + runs.text())
    return 0 if done == count * SECTOR else 1


def read_each(fd, sector, count):
    runs, status, memory = Runs(), 0, buffer_of(1)
    for at in range(sector, sector + count):
        try:
            done = os.preadv(fd, [memory], at * SECTOR)
            what = decode(bytes(memory)) if done == SECTOR else ("!", b"short")
        except OSError as error:
            what = ("!", os.strerror(error.errno).encode())
        status |= what[0] == "!"
        runs.add(what)
    say(b"sectors %d+%d:" % (sector, count) + runs.text())
    return int(status)


def write(fd, sector, count, tag="A", fua=""):
    memory = buffer_of(count)
    if tag != "0":
        memory[:] = b"".join(pattern(tag, n) for n in range(sector, sector + count))
    try:
        done = os.pwritev(fd, [memory], sector * SECTOR, os.RWF_DSYNC if fua == "fua" else 0)
    except OSError as error:
        say("write %d+%d: %s" % (sector, count, reason(error.errno)))
        return 1
    say("write %d+%d tag %s%s: %d bytes" % (sector, count, tag, " fua" if fua else "", done))
    return 0 if done == count * SECTOR else 1


def sync(fd):
    try:
        os.fsync(fd)
    except OSError as error:
        say("fsync: " + reason(error.errno))
        return 1
    say("fsync: ok")
    return 0


def punch(fd, name, mode, sector, count):
    error = errno.EOPNOTSUPP
    if mode:
        import ctypes  # takes long; most I/O is reads and writes
        libc = ctypes.CDLL(None, use_errno=True)
        done = libc.fallocate(fd, mode, ctypes.c_long(sector * SECTOR),
                              ctypes.c_long(count * SECTOR))
        error = ctypes.get_errno() if done else 0
    say("%s %d+%d: %s" % (name, sector, count, reason(error) if error else "ok"))
    return 1 if error else 0


def main():
    operation, path = sys.argv[1:3]
    sector, count = (int(word) for word in (sys.argv[3:5] + ["0", "1"][len(sys.argv[3:5]):]))
    flags = {"r": os.O_RDONLY, "l": os.O_RDONLY, "w": os.O_WRONLY}.get(operation, os.O_RDWR)
    try:
        fd = open_direct(path, flags) if operation in "rlw" else os.open(path, flags)
    except OSError as error:
        say("open: " + reason(error.errno))
        return 1
    if "BIO_BEGINS" in os.environ:  # for whoever waits until it waits
        with open(os.environ["BIO_BEGINS"], "w", encoding="utf-8"):
            pass
    if operation == "r":
        return read(fd, sector, count)
    if operation == "l":
        return read_each(fd, sector, count)
    if operation == "w":
        return write(fd, sector, count, *sys.argv[5:7])
    if operation == "f":
        return sync(fd)
    name, mode = {"d": ("discard", PUNCH_HOLE | KEEP_SIZE), "z": ("zeroout", ZERO_RANGE),
                  "s": ("secdiscard", 0)}[operation]
    return punch(fd, name, mode, sector, count)


if __name__ == "__main__":
    sys.exit(main())
