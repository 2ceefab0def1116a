#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# -o cache=on: reads again cost nothing below, and no byte is old once the command or write that
# changed it has been acknowledged, whichever way the writer and the reader came.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires python3

say "the option"
refused "neither on nor off" dmctl mount "$W/none" --store "$W/none.db" --socket "$W/none" -o cache=maybe
start_dmfs -o cache=on

fill() { python3 -c 'import sys; sys.stdout.buffer.write(bytes([int(sys.argv[1])]) * (int(sys.argv[2]) << 20))' "$1" "$2"; }
fill 1 8 >a
fill 2 8 >b
fill 3 8 >c
dmctl create v --table "0 16384 linear a 0"
dmctl create low --table "0 16384 linear b 0"
dmctl create up --table "0 8192 linear low 8"
dmctl create beside --table "0 8192 linear low 8"
dmctl create top --table "0 4096 linear up 0"
DAEMON=$(daemon_pid)
export DAEMON

cat >lib.py <<'PY'
import ctypes, mmap, os, random, subprocess, sys, threading, time
MNT = os.environ["W"] + "/mnt/"
def dmctl(*args): subprocess.run([os.environ["DMFS_BUILD"] + "/dmctl", *args], check=True, stdout=subprocess.DEVNULL)
def calls():
    with open(f"/proc/{os.environ['DAEMON']}/io") as f:
        d = dict(line.split(": ") for line in f)
    return int(d["rchar"]), int(d["syscr"])
def check(what, got, want):
    if got != want: sys.exit(f"FAIL: {what}: got {got[:4]!r}..., expected {want[:4]!r}... ({len(got)}, {len(want)} bytes)")
libc = ctypes.CDLL(None, use_errno=True)
class Route:
    """One way to a volume: its descriptors stay open, so that the kernel has reason to keep pages."""
    def __init__(self, name):
        self.name = name
        self.fd = os.open(MNT + name, os.O_RDWR)
        self.direct = os.open(MNT + name, os.O_RDWR | os.O_DIRECT)
        self.size = os.fstat(self.fd).st_size
        self.map = mmap.mmap(self.fd, self.size)
        self.bounce = mmap.mmap(-1, 1 << 17)
    def read_buffered(self, at, n): return os.pread(self.fd, n, at)
    def read_mmap(self, at, n): return self.map[at:at + n]
    def read_direct(self, at, n):
        begin, end = at & ~511, (at + n + 511) & ~511
        assert os.preadv(self.direct, [memoryview(self.bounce)[:end - begin]], begin) == end - begin
        return bytes(self.bounce[at - begin:at - begin + n])
    def read_opened(self, at, n):
        with open(MNT + self.name, "rb", buffering=0) as f: return os.pread(f.fileno(), n, at)
    def write_buffered(self, at, data): assert os.pwrite(self.fd, data, at) == len(data)
    def write_direct(self, at, data):
        old = bytearray(self.read_direct(at & ~511, ((at + len(data) + 511) & ~511) - (at & ~511)))
        old[at & 511:(at & 511) + len(data)] = data
        self.bounce[:len(old)] = bytes(old)
        assert os.pwritev(self.direct, [memoryview(self.bounce)[:len(old)]], at & ~511) == len(old)
    def write_mmap(self, at, data):
        self.map[at:at + len(data)] = data
        self.map.flush()
    def fallocate(self, mode, at, n):
        if libc.fallocate(self.fd, mode, ctypes.c_long(at), ctypes.c_long(n)): raise OSError(ctypes.get_errno(), "fallocate")
    READS = [read_buffered, read_mmap, read_direct, read_opened]
    WRITES = [write_buffered, write_direct, write_mmap]
PY

say "what was read once is not read again, in large and small pieces, after a close too"
PYTHONPATH=. python3 - <<'PY'
from lib import *
path = MNT + "v"
def whole(): return open(path, "rb").read()
assert whole() == b"\1" * (8 << 20)
before = calls()
check("the second pass", whole(), b"\1" * (8 << 20))
rchar, syscr = (x - y for x, y in zip(calls(), before))
if rchar > 65536 or syscr > 40: sys.exit(f"FAIL: the second pass made the daemon read {rchar} bytes in {syscr} calls")
fd = os.open(path, os.O_RDONLY)
before = calls()
for at in range(0, 8 << 20, 4096): assert len(os.pread(fd, 4096, at)) == 4096
rchar, syscr = (x - y for x, y in zip(calls(), before))
if rchar > 65536 or syscr > 20: sys.exit(f"FAIL: 2048 reads made the daemon read {rchar} bytes in {syscr} calls")
PY

say "swap and resume: open, mapped, closed"
PYTHONPATH=. python3 - <<'PY'
from lib import *
route = Route("v")
def all_reads(want):
    for read in Route.READS: check(read.__name__, read(route, 4096, 20000), want * 20000)
all_reads(b"\1")
for file, byte in [("c", b"\3"), ("a", b"\1"), ("c", b"\3")]:
    dmctl("load", "v", "--table", f"0 16384 linear {file} 0")
    all_reads(b"\1" if byte == b"\3" else b"\3")
    dmctl("resume", "v")
    all_reads(byte)
with open("c", "r+b") as f: f.write(b"\4" * (8 << 20))  # behind the daemon's back
dmctl("suspend", "v")
dmctl("resume", "v")
all_reads(b"\4")
# A longer one and a shorter one.
dmctl("load", "v", "--table", "0 64 linear a 0"); dmctl("resume", "v")
check("shorter", open(MNT + "v", "rb").read(), b"\1" * 32768)
dmctl("load", "v", "--table", "0 16384 linear c 0"); dmctl("resume", "v")
all_reads(b"\4")
PY
dmctl load v --table "0 16384 linear a 0"
dmctl resume v
cmp a mnt/v || fail "swapped while closed"

say "swapped below"
PYTHONPATH=. python3 - <<'PY'
from lib import *
routes = [Route(n) for n in ("up", "beside", "top", "low")]
for file, byte in [("a", b"\1"), ("b", b"\2")]:
    dmctl("load", "low", "--table", f"0 16384 linear {file} 0"); dmctl("resume", "low")
    for route in routes:
        for read in Route.READS: check(f"{read.__name__} {route.name}", read(route, 8192, 4096), byte * 4096)
PY

say "written by one way, read by another"
PYTHONPATH=. python3 - <<'PY'
from lib import *
seed = int.from_bytes(os.urandom(4), "little")
random.seed(seed)
print("seed", seed)
BASE = {"low": 0, "up": 4096, "beside": 4096, "top": 4096}  # where each begins on low
routes = [Route(n) for n in BASE]
SPAN = 64 << 10
model = bytearray(routes[0].read_direct(0, SPAN + 8192))
def at_of(route, at): return at - BASE[route.name]
for i in range(600):
    n = random.choice([1, 100, 512, 4096, 4096, 10000])
    at = random.randrange(4096, SPAN - n) & ~random.choice([0, 511, 4095])
    writer = random.choice(routes)
    kind = random.randrange(5)
    if kind < 3:
        data = os.urandom(n)
        write = Route.WRITES[kind]
        what = write.__name__
        write(writer, at_of(writer, at), data)
    else:
        mode, what = [(3, "punch"), (0x11, "zero")][kind - 3]
        data = bytes(n)
        writer.fallocate(mode, at_of(writer, at), n)
    model[at:at + n] = data
    for route in routes:
        for read in Route.READS:
            begin = max(4096, at - random.randrange(5000))
            end = min(SPAN, at + n + random.randrange(5000))
            check(f"{i}: {what} {writer.name} {at}+{n}, {read.__name__} {route.name}",
                  read(route, at_of(route, begin), end - begin), bytes(model[begin:end]))
with open("b", "rb") as f: check("the file", f.read(SPAN), bytes(model[:SPAN]))
PY

say "writers on all ways at once: nothing is stuck, and in the end all agree"
PYTHONPATH=. timeout 100 python3 - <<'PY'
from lib import *
BASE = {"low": 0, "up": 4096, "beside": 4096, "top": 4096}
routes = [Route(n) for n in BASE for _ in range(2)]
SPAN = 64 << 10
def work(route, seed):
    r = random.Random(seed)
    for _ in range(150):
        n = r.choice([1, 700, 4096, 9000])
        at = r.randrange(4096, SPAN - n) - BASE[route.name]
        if r.random() < 0.5: r.choice([Route.write_buffered, Route.write_direct])(route, at, r.randbytes(n))
        else: r.choice(Route.READS)(route, at, n)
threads = [threading.Thread(target=work, args=(r, i)) for i, r in enumerate(routes)]
for t in threads: t.start()
for t in threads: t.join()
want = routes[0].read_direct(4096, SPAN - 4096 - 512)
for route in routes:
    for read in Route.READS:
        check(f"{read.__name__} {route.name}", read(route, 4096 - BASE[route.name], len(want)), want)
PY

say "asynchronous direct writes beside buffered readers of the same volume"
if command -v fio >/dev/null; then
  for i in 1 2 3; do
    fio --name=w --filename="$MNT/v" --rw=randwrite --bs=4k --iodepth=16 --direct=1 --ioengine=libaio --size=8M \
      --randseed=$i --refill_buffers --minimal >/dev/null &
    writer=$!
    while kill -0 $writer 2>/dev/null; do cmp -s "$MNT/v" a || :; done
    wait $writer || fail "fio"
    cmp "$MNT/v" a || fail "round $i: a page from before a direct write"
  done
fi

say "mapped, synced, and through to the file"
PYTHONPATH=. python3 - <<'PY'
from lib import *
v = Route("v")
v.map[5000:5010] = b"mmap-bytes"
v.map.flush()
check("msync", open("a", "rb").read()[5000:5010], b"mmap-bytes")
v.write_buffered(70001, b"fsynced"); os.fsync(v.fd)
check("fsync", open("a", "rb").read()[70001:70008], b"fsynced")
v.map[9000] = 0x7e
os.fsync(v.fd)
check("fsync of a mapped page", open("a", "rb").read()[9000:9001], b"\x7e")
PY
if command -v strace >/dev/null; then
  strace -f -qq -e trace=fsync,fdatasync,sync_file_range -o sync.log -p "$DAEMON" &
  tracer=$!
  PIDS+=("$tracer")
  wait_until 10 grep -q "TracerPid:[[:space:]]*[1-9]" "/proc/$DAEMON/status"
  dd if=/dev/zero of=mnt/v bs=4096 count=1 conv=notrunc,fsync status=none
  kill -INT "$tracer"
  wait "$tracer" || :
  grep -qE 'f(data)?sync\([0-9]+' sync.log || fail "fsync does not reach the file"
fi
fill 9 1 >nine
dd if=nine of=mnt/v bs=4096 seek=5 count=4 conv=notrunc oflag=direct status=none
cmp -n 16384 nine <(dd if=mnt/v bs=4096 skip=5 count=4 status=none) || fail "dd direct, then buffered"
fill 7 1 >seven
dd if=seven of=mnt/v bs=4096 seek=5 count=4 conv=notrunc status=none
cmp -n 16384 seven <(dd if=mnt/v bs=4096 skip=5 count=4 iflag=direct status=none) || fail "dd buffered, then direct"

say "while one is suspended its pages are there, and writes of the others are not held up"
cat mnt/up >/dev/null
dmctl suspend up
dd if=seven of=mnt/low bs=4096 seek=1 count=4 conv=notrunc status=none
cmp -s -n 16384 seven mnt/up & # held, when pages are missing
PIDS+=($!)
reader=$!
dmctl resume up
wait $reader || :
cmp -n 16384 seven mnt/up || fail "old pages after the resume"

say "killed readers, held readers: the end comes all the same"
dmctl load v --table "0 16384 linear c 0"
dmctl suspend v
dmctl resume v
dmctl suspend v
(cat mnt/v >/dev/null 2>&1 || :) &
PIDS+=($!)
wait_until 10 sh -c '[ "$("$DMFS_BUILD/dmctl" info -c --noheadings -o open v)" = 1 ]'
kill -TERM "$DAEMON"
wait_until 20 sh -c "! kill -0 $DAEMON"
if mountpoint -q "$MNT"; then fail "still mounted"; fi
