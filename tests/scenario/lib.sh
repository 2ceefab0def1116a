# shellcheck shell=bash disable=SC2015
# Sourced by the scenarios. A scenario runs in a private directory $W, drives the built dmctl, and
# leaves nothing behind: whatever it attached, mounted or started goes when it ends, also when it
# fails. Exit 77 with a reason on a line of its own: it cannot run here.
set -euo pipefail
export LC_ALL=C
: "${DMFS_BUILD:?the folder of the built programs}"
dmctl() { "$DMFS_BUILD/dmctl" "$@"; }
W=${W:?a private directory}
MNT=$W/mnt
STORE=$W/dmfs.db
export DMFS_SOCKET=$W/sock

LOOPS=() MOUNTS=() PIDS=()

skip() { echo "SKIP: $*"; exit 77; }
fail() { echo "FAIL: $*" >&2; exit 1; }
say() { echo "== $*"; }

requires_fuse() { [ -c /dev/fuse ] && : 2>/dev/null <>/dev/fuse || skip "/dev/fuse cannot be opened here"; }
requires_root() { [ "$(id -u)" = 0 ] || skip "needs root"; }
requires_loop() { requires_root; [ -e /dev/loop-control ] && losetup -f >/dev/null 2>&1 || skip "no loop devices here"; }
requires_userns() { unshare -Urm true 2>/dev/null || skip "no user namespaces here"; }
requires() { local c; for c; do command -v "$c" >/dev/null || skip "$c is not installed"; done; }

# start_dmfs [-o OPTIONS]: mounts the instance of this scenario
start_dmfs() { [ -d "$MNT" ] || mkdir -p "$MNT" 2>/dev/null || :; dmctl mount "$MNT" --store "$STORE" --socket "$DMFS_SOCKET" "$@"; }
stop_dmfs() { dmctl umount "$MNT"; }
daemon_pid() { dmctl --json version | sed -E 's/.*"pid":([0-9]+).*/\1/'; }

# backing NAME SIZE: a sparse file, its path on stdout
backing() { truncate -s "$2" "$W/$1"; echo "$W/$1"; }
# attach VOLUME [losetup options]: sets LOOP
attach() { LOOP=$(losetup -f --show "${@:2}" "$MNT/$1"); LOOPS+=("$LOOP"); }
detach() {
  losetup -d "$1"
  # Detaching is lazy: the volume is open until the kernel has let go of it.
  local _
  for _ in $(seq 200); do
    [ -n "$(losetup -nO BACK-FILE "$1" 2>/dev/null)" ] || return 0
    read -rt 0.05 <> <(:) || :
  done
  fail "$1 is still attached"
}
mount_fs() { mkdir -p "$2"; mount "$1" "$2"; MOUNTS+=("$2"); }
umount_fs() { umount "$1"; }
# wait_until SECONDS COMMAND...: until it succeeds
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "timed out waiting for: $*"
    read -rt 0.02 <> <(:) || :
  done
}
expect() { local want=$1 got; shift; got=$("$@"); [ "$got" = "$want" ] || fail "$*: expected '$want', got '$got'"; }
# refused TEXT COMMAND...: fails, and says TEXT
refused() {
  local text=$1 out
  shift
  if out=$("$@" 2>&1); then fail "succeeded: $*"; fi
  grep -qF -- "$text" <<<"$out" || fail "$*: expected '$text' in: $out"
}

# mounted DIR: also when its daemon is dead
mounted() { grep -qF " $1 " /proc/self/mounts; }

cleanup() {
  local status=$? m l p
  set +e
  for ((m = ${#MOUNTS[@]} - 1; m >= 0; m--)); do mountpoint -q "${MOUNTS[m]}" && umount -l "${MOUNTS[m]}"; done
  for p in "${PIDS[@]}"; do kill -KILL "$p" 2>/dev/null; done
  if mounted "$MNT"; then
    # What is suspended would hold up whoever lets go of it.
    local d
    for d in $(timeout 10 "$DMFS_BUILD/dmctl" info -c --noheadings -o name 2>/dev/null); do
      timeout 10 "$DMFS_BUILD/dmctl" resume "$d" >/dev/null 2>&1
    done
  fi
  for l in "${LOOPS[@]}"; do losetup -d "$l" 2>/dev/null; done
  if mounted "$MNT"; then
    local pid
    pid=$(timeout 10 "$DMFS_BUILD/dmctl" --json version 2>/dev/null | sed -E 's/.*"pid":([0-9]+).*/\1/')
    timeout 20 "$DMFS_BUILD/dmctl" umount "$MNT" >/dev/null 2>&1 || {
      [ -n "$pid" ] && kill -TERM "$pid" 2>/dev/null
      umount -l "$MNT" 2>/dev/null || fusermount3 -uz "$MNT" 2>/dev/null
    }
  fi
  [ $status = 0 ] || [ $status = 77 ] || { [ -e "$STORE.log" ] && sed 's/^/dmfs.log: /' "$STORE.log" | tail -50; }
  exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM
