#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# suspend with lockfs: file systems on loop devices over a volume are frozen until resume, and what
# lies in its backing files meanwhile is whole.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires_loop
requires mkfs.ext4 e2fsck dumpe2fs fsfreeze addpart python3
start_dmfs
FS=$W/fs
half=$((32 * 2048))
backing a 32M >/dev/null
backing b 32M >/dev/null
printf '%s\n' "0 $half linear a 0" "$half $half linear b 0" | dmctl create v
attach v --direct-io=on
loop=$LOOP
mkfs.ext4 -q "$loop"
mount_fs "$loop" fs

copy() { cat a b >image; }
recovery_needed() { dumpe2fs -h image 2>/dev/null | grep -q needs_recovery; }
state() { sed -n 's/^State:.\(.\).*/\1/p' "/proc/$1/status"; }
blocked() { [ "$(state "$1")" = D ]; }
# load: writes files, renames and removes them, and counts rounds outside
load() {
  local n=0
  while [ ! -e stop ]; do
    n=$((n + 1))
    head -c $((n % 50 * 4001)) /dev/urandom >"fs/$1.$((n % 20))" || exit 1
    mv "fs/$1.$((n % 20))" "fs/$1.$((n % 7)).moved"
    echo $n >"count.$1.new" && mv "count.$1.new" "count.$1"
  done
}
past() { [ "$(cat "count.$1" 2>/dev/null || echo 0)" -gt "$2" ]; }
start_load() {
  rm -f stop
  for one in x y; do
    load $one &
    PIDS+=($!)
  done
}
stop_load() { touch stop; wait "${PIDS[@]}"; PIDS=(); }

say "a copy under load is clean"
start_load
for round in 1 2 3; do
  wait_until 20 past x $((round * 5))
  expect "" dmctl suspend v
  copy
  e2fsck -fn image >fsck.out 2>&1 || { cat fsck.out; fail "e2fsck, round $round"; }
  if recovery_needed; then fail "the copy's journal has to be replayed"; fi
  # Who writes waits, and nothing gets to the files.
  (exec 2>/dev/null; echo late >fs/late) &
  late=$!
  wait_until 10 blocked $late
  before=$(cat count.x count.y)
  sha256sum a b >sums
  sha256sum --quiet -c sums || fail "written to while suspended"
  dmctl resume v
  wait $late || fail "who waited has failed"
  expect late cat fs/late
  wait_until 20 past x "${before%%$'\n'*}"
  wait_until 20 past y "${before##*$'\n'}"
done

say "without lockfs it is not"
found=no
for round in 1 2 3 4 5; do
  wait_until 20 past x "$(cat count.x)"
  dmctl suspend --nolockfs v
  copy
  dmctl resume v
  if recovery_needed; then found=yes; fi
done
[ $found = yes ] || fail "never a journal to replay without lockfs"
if fsfreeze -u fs 2>/dev/null; then fail "--nolockfs froze it"; fi

say "noflush implies that"
dmctl suspend --noflush v
copy
recovery_needed || fail "noflush froze it"
dmctl resume v

say "twice, and what the reply says"
reply=$(dmctl --json -v suspend v)
grep -qF "\"frozen\":[\"$FS\"]" <<<"$reply" || fail "frozen is missing in $reply"
expect "" dmctl suspend v
dmctl resume v
dmctl resume v
if fsfreeze -u fs 2>/dev/null; then fail "still frozen"; fi

say "the table of an active volume is swapped"
freezes() { grep -c 'lockfs: froze' "$STORE.log"; }
swap() { # [--nolockfs]: as resume alone does it
  printf '%s\n' "0 $half linear a 0" "$half $half linear b 0" | dmctl load v
  expect "" dmctl resume "$@" v
  wait_until 20 past x "$(cat count.x)"
}
before=$(freezes)
swap
expect $((before + 1)) freezes
swap --nolockfs
expect $((before + 1)) freezes
stop_load

say "frozen by somebody else"
fsfreeze -f fs
dmctl suspend v 2>said
grep -q "^  lockfs: $FS (ext4 on $loop) was frozen already" said || fail "said: $(cat said)"
dmctl resume v 2>said
[ ! -s said ] || fail "resume said: $(cat said)"
fsfreeze -u fs || fail "resume has thawed what was not its own"

say "thawed by somebody else"
dmctl suspend v
fsfreeze -u fs &
thaws=$!
PIDS+=($thaws)
wait_until 10 blocked $thaws
dmctl resume v 2>said
wait $thaws
PIDS=()
grep -q "^  lockfs: $FS was thawed by somebody else" said || fail "said: $(cat said)"
touch fs/alive

say "the mount is kept while it is frozen, and let go at once after"
dmctl suspend v
if umount fs 2>/dev/null; then fail "unmounted while frozen"; fi
dmctl resume v
umount_fs fs
mount "$loop" fs

say "reached below another mount only"
mkdir -p bind
mount --bind fs bind
MOUNTS+=("$W/bind")
mount -t tmpfs none fs
dmctl suspend v 2>said
[ ! -s said ] || fail "said: $(cat said)"
dmctl resume v
umount fs
umount bind
mount -t tmpfs none fs
dmctl suspend v 2>said
grep -q "^  lockfs: $FS (ext4 on $loop) is not frozen: it cannot be opened" said || fail "said: $(cat said)"
dmctl resume v
umount fs
umount_fs fs
e2fsck -fn "$loop" >fsck.out 2>&1 || { cat fsck.out; fail "e2fsck at the end"; }
detach "$loop"

say "a loop device without a file system"
backing raw 8M >/dev/null
dmctl create r --table "0 16384 linear raw 0"
attach r
exec 8<>"$LOOP"
printf 'written past all file systems' >&8
if grep -q written raw; then say "(written out early)"; fi
dmctl suspend r
expect "written past all file systems" head -c 29 raw
dmctl resume r
exec 8<&-
detach "$LOOP"
wait_until 10 dmctl remove r

say "a partition"
attach v -P
# As what reads partition tables would, which not every kernel does.
addpart "$LOOP" 1 2048 65536 || :
if [ -e "/sys/class/block/${LOOP#/dev/}p1" ]; then
  [ -b "${LOOP}p1" ] || mknod "${LOOP}p1" b $(tr : ' ' <"/sys/class/block/${LOOP#/dev/}p1/dev")
  mkfs.ext4 -qF "${LOOP}p1"
  mount_fs "${LOOP}p1" fs
  echo data >fs/file
  grep -qF "\"frozen\":[\"$FS\"]" <<<"$(dmctl --json -v suspend v)" || fail "the partition is not frozen"
  dmctl resume v
  umount_fs fs
  delpart "$LOOP" 1
else
  say "(none appears: not tried)"
fi
detach "$LOOP"
wait_until 10 dmctl remove v

readable_as_it_is() { # IMAGE
  mkdir -p as-it-is
  mount -o loop,ro,norecovery,nouuid "$1" as-it-is && MOUNTS+=("$W/as-it-is")
  cmp kept as-it-is/kept && ls -lR as-it-is >/dev/null && cat as-it-is/* >/dev/null
  umount as-it-is
}
big() { # TYPE CHECK...
  local type=$1
  shift
  command -v "mkfs.$type" >/dev/null || return 0
  grep -qw "$type" /proc/filesystems || modprobe "$type" 2>/dev/null || return 0
  say "$type"
  rm -f disk
  backing disk 320M >/dev/null
  dmctl create big --table "0 $((320 * 2048)) linear disk 0"
  attach big
  "mkfs.$type" -q "$LOOP" >/dev/null
  mount_fs "$LOOP" fs
  head -c 100000 /dev/urandom >kept
  start_load
  wait_until 20 past x 5
  cp kept fs/kept
  grep -qF "\"frozen\":[\"$FS\"]" <<<"$(dmctl --json -v suspend big)" || fail "$type is not frozen"
  cp --sparse=always disk image
  dmctl resume big
  stop_load
  "$@" image >fsck.out 2>&1 || { cat fsck.out; fail "$* of the copy"; }
  umount_fs fs
  detach "$LOOP"
  wait_until 10 dmctl remove big
}
rm -f count.*
big btrfs btrfs check --force
rm -f count.*
# xfs leaves a record in its log when it is frozen, so that xfs_repair wants it mounted once. What
# can be read without replaying that is the proof.
big xfs readable_as_it_is

say "mapped pages of the volume's own file"
stop_dmfs
start_dmfs -o cache=on
backing mapped 1M >/dev/null
dmctl create m --table "0 2048 linear mapped 0"
coproc MAPPER { exec python3 -c '
import mmap, sys
with open("mnt/m", "r+b") as file, mmap.mmap(file.fileno(), 4096) as pages:
    for line in sys.stdin:
        pages[:6] = line.encode()[:6]
        print("done", flush=True)
'; }
mapper=$MAPPER_PID  # bash forgets it when the process ends
PIDS+=("$mapper")
for word in first- second; do
  echo "$word" >&"${MAPPER[1]}"
  read -r _ <&"${MAPPER[0]}"
  dmctl suspend m
  expect $word head -c 6 mapped
  dmctl resume m
done
kill "$mapper"
wait "$mapper" 2>/dev/null || :
PIDS=()
wait_until 10 dmctl remove m
stop_dmfs
