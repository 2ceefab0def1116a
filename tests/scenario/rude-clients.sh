#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Clients of the socket that send garbage, half a message, far too much, or nothing at all: they
# are dropped, and dmctl and the volumes go on.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires fio python3
start_dmfs
backing a 32M >/dev/null
dmctl create v --table "0 65536 linear a 0"
pid=$(daemon_pid)
rss() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status"; } # KiB
# A sanitizer keeps freed memory for a while, and has much of its own.
factor=1
if grep -qaE '__(asan|tsan)_init' "$DMFS_BUILD/dmfs"; then factor=6; fi
peak() { sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status"; }
fds() { find "/proc/$pid/fd" -mindepth 1 | wc -l; }
goes_on() { # WHAT
  timeout 10 "$DMFS_BUILD/dmctl" status v >/dev/null || fail "dmctl does not answer: $1"
  timeout 10 "$DMFS_BUILD/dmctl" create goes-on --table "0 8 zero" || fail "create: $1"
  timeout 10 "$DMFS_BUILD/dmctl" remove --retry goes-on || fail "remove: $1"
  [ "$(daemon_pid)" = "$pid" ] || fail "another daemon: $1"
}
fio --output=fio.out --name=load --filename=mnt/v --size=32m --rw=randwrite --bs=4k --ioengine=libaio --iodepth=16 \
  --direct=1 --verify=crc32c --verify_fatal=1 --do_verify=1 --loops=1000 --fallocate=none --verify_state_save=0 &
load=$!
PIDS+=("$load")
wait_until 10 sh -c '[ "$("$DMFS_BUILD/dmctl" info -c --noheadings -o open v)" -ge 1 ]'
goes_on "before anything"
before=$(rss)
descriptors=$(fds)

cat >client.py <<'END'
import json, os, socket, sys
def connect():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(30)
    s.connect(os.environ['DMFS_SOCKET'])
    return s
def send(s, data):
    """False when the daemon has had enough."""
    try:
        s.sendall(data)
        return True
    except (BrokenPipeError, ConnectionResetError):
        return False
def rest(s):
    out = b''
    try:
        while part := s.recv(65536):
            out += part
    except ConnectionResetError:
        pass
    return out
def error_of(line):
    reply = json.loads(line)
    assert reply['jsonrpc'] == '2.0' and 'result' not in reply, line
    assert reply['error']['message'] and reply['error']['data']['name'] == 'EINVAL', line
    return reply['error']['code']
VERSION = b'{"jsonrpc":"2.0","id":7,"method":"version","params":{}}\n'
END

say "garbage, each followed by a request on a new connection"
python3 - <<'END'
from client import *
import random, threading
random.seed(1)
bad = {
    b'hello\n': -32700, b'{\n': -32700, b'[' * 100000 + b'\n': -32700, b'\xff\xfe\x00\n': -32700,
    b'{"jsonrpc":"2.0","id":1,"method":"version"' + b'\n': -32700, b'null\n': -32600, b'[]\n': -32600,
    b'42\n': -32600, b'{}\n': -32600, b'{"jsonrpc":"1.0","id":1,"method":"version","params":{}}\n': -32600,
    b'{"jsonrpc":"2.0","id":1,"method":3,"params":{}}\n': -32600,
    b'{"jsonrpc":"2.0","id":1,"method":"nonsense","params":{}}\n': -32601,
    b'{"jsonrpc":"2.0","id":1,"method":"status","params":{"name":5}}\n': -32602,
    b'{"jsonrpc":"2.0","id":1,"method":"status","params":{"name":"v","uuid":"v"}}\n': -32602,
    b'{"jsonrpc":"2.0","id":1,"method":"create","params":{"name":"x","minor":1e99}}\n': -32602,
    b'{"jsonrpc":"2.0","id":1,"method":"load","params":{"name":"v","targets":"all"}}\n': -32602,
}
for data, code in bad.items():
    s = connect()
    send(s, data)
    line = s.makefile('rb').readline()
    assert error_of(line) == code, (data[:60], line)
    s.close()
    s = connect()
    send(s, VERSION)
    assert json.loads(s.makefile('rb').readline())['result']['name'] == 'dmfs'
for size in [1, 1000, 1000000] * 10:
    s = connect()
    # Every line of it is answered, so somebody has to read meanwhile.
    reader = threading.Thread(target=rest, args=[s])
    reader.start()
    send(s, random.randbytes(size) + b'\n')
    s.shutdown(socket.SHUT_WR)
    reader.join()
END
goes_on "after garbage"

say "half a message, then nothing, then the end"
python3 - <<'END'
from client import *
for cut in range(1, len(VERSION) - 1, 5):
    s = connect()
    send(s, VERSION[:cut])
    s.shutdown(socket.SHUT_WR)
    reply = rest(s)
    assert not reply or error_of(reply), reply
    s = connect()
    send(s, VERSION[:cut])
    s.close()
# A request that is cut off is not carried out, however complete it looks.
s = connect()
send(s, b'{"jsonrpc":"2.0","id":1,"method":"remove_all","params":{}}')
s.close()
# In pieces it is a message like any other; two in one piece are two.
s = connect()
for byte in VERSION:
    send(s, bytes([byte]))
send(s, VERSION * 3)
f = s.makefile('rb')
for _ in range(4):
    assert json.loads(f.readline())['id'] == 7
END
[ -e mnt/v ] || fail "half a request was carried out"
goes_on "after halves"

say "a line of 1 GiB"
# Nobody reads its end: it is dropped at the limit, and is told so.
set +o pipefail # who writes into the pipe is cut off
head -c 1G /dev/zero | tr '\0' 'x' | timeout 60 python3 -c '
from client import *
s = connect()
sent = 0
while data := os.read(0, 1 << 20):
    if not send(s, data):
        break
    sent += len(data)
reply = rest(s)
assert sent < 200 << 20, f"{sent} bytes were taken"
if reply:
    assert "longer than" in json.loads(reply)["error"]["message"], reply[:300]
print(f"   dropped after {sent >> 20} MiB")
' || fail "the line of 1 GiB"
set -o pipefail
goes_on "after a line of 1 GiB"

say "many that say nothing, some that never read, some with half a line"
mkfifo go
python3 - <<'END' &
from client import *
idle = [connect() for _ in range(120)]
half = [connect() for _ in range(40)]
deaf = [connect() for _ in range(40)]
for s in half:
    send(s, b'x' * 100000)
for s in deaf:
    s.setblocking(False)
    try:
        while True:
            s.send(VERSION * 1000)
    except BlockingIOError:
        pass
open('connected', 'w').close()
os.read(os.open('go', os.O_RDONLY), 1)
END
rude=$!
PIDS+=("$rude")

wait_until 30 [ -e connected ]
for i in 1 2 3 4 5; do goes_on "with 200 rude clients, $i"; done
[ "$(rss)" -lt $((before + factor * 300 * 1024)) ] || fail "resident: $before KiB before, $(rss) KiB with 200 clients"
kill -KILL $rude
wait $rude 2>/dev/null || :
goes_on "after 200 rude clients were killed"

say "no descriptor and little memory stay behind"
wait_until 10 sh -c "[ \$(find /proc/$pid/fd -mindepth 1 | wc -l) -le $((descriptors + 2)) ]"
echo "   resident $before KiB before, $(rss) KiB now, $(peak) KiB at most"
[ "$(rss)" -lt $((before + factor * 200 * 1024)) ] || fail "resident: $before KiB before, $(rss) KiB now"
[ "$(peak)" -lt $((before + factor * 512 * 1024)) ] || fail "resident: $before KiB before, $(peak) KiB at most"
kill -0 $load 2>/dev/null || { cat fio.out; fail "fio has ended"; }
kill -INT $load
wait $load || :
if grep -E 'err=-? *[1-9]|verify:|bad' fio.out; then fail "fio"; fi
grep -q 'err= 0' fio.out || { cat fio.out; fail "fio"; }
wait_until 10 dmctl remove v
stop_dmfs
