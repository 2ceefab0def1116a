#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What becomes of frozen file systems when the daemon ends or is killed; when it has no right to
# freeze; when it writes to the file system itself.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires_loop
requires mkfs.ext4 e2fsck dumpe2fs fsfreeze python3 setpriv unshare

FS=$W/fs
# as_user COMMAND...: without any rights, in the mount namespace that we are in
as_user() { setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all "$@"; }

if [ "${1:-}" = unprivileged ]; then
  # A namespace of our own, with a fuse.conf that lets the user show root the mount.
  echo user_allow_other >conf
  mount --bind conf /etc/fuse.conf || exit 77
  mkdir dev
  mount -t tmpfs -o mode=755,dev tmpfs dev && mknod -m 666 dev/fuse c 10 229 &&
    mount --bind dev/fuse /dev/fuse || exit 77
  if [ ! -u "$(command -v fusermount3)" ]; then exit 77; fi
  cd "$W/home" || exit 1
  DMFS_SOCKET=$PWD/sock STORE=$PWD/dmfs.db MNT=$PWD/mnt
  mkdir "$MNT"
  truncate -s 16M raw
  chown -R 65534:65534 .
  as_user test -w /dev/fuse || exit 77
  as_user "$DMFS_BUILD/dmctl" mount "$MNT" --store "$STORE" --socket "$DMFS_SOCKET" -o allow_other || exit 77
  as_user "$DMFS_BUILD/dmctl" create v --table "0 32768 linear $PWD/raw 0"
  attach v
  mkfs.ext4 -q "$LOOP"
  mount_fs "$LOOP" fs
  python3 -c 'open("fs/file", "w").write("data" * 1000)'
  as_user "$DMFS_BUILD/dmctl" suspend v 2>said || fail "suspend: $(cat said)"
  expect "  lockfs: $PWD/fs (ext4 on $LOOP) is not frozen: Operation not permitted" cat said
  if fsfreeze -u fs 2>/dev/null; then fail "it was frozen all the same"; fi
  # What could be done has been: the file lies in the backing file, in the journal at least.
  grep -q datadatadata raw || fail "the file system was not written out"
  expect "" as_user "$DMFS_BUILD/dmctl" suspend v
  expect "" as_user "$DMFS_BUILD/dmctl" resume v
  umount fs
  # Nothing is known of the device but that it is one.
  as_user "$DMFS_BUILD/dmctl" suspend v 2>said
  expect "  lockfs: what is cached of $LOOP is not written out: Permission denied" cat said
  expect "" as_user "$DMFS_BUILD/dmctl" suspend v
  as_user "$DMFS_BUILD/dmctl" resume v
  expect "" as_user "$DMFS_BUILD/dmctl" suspend --nolockfs v
  as_user "$DMFS_BUILD/dmctl" resume v
  detach "$LOOP"
  wait_until 10 as_user "$DMFS_BUILD/dmctl" umount "$MNT"
  exit 0
fi

blocked() { [ "$(sed -n 's/^State:.\(.\).*/\1/p' "/proc/$1/status")" = D ]; }
gone() { ! kill -0 "$1" 2>/dev/null; }
prepare() { # a volume with a file system that is written to and then frozen; a writer that waits
  backing raw 32M >/dev/null
  dmctl create v --table "0 65536 linear raw 0"
  attach v --direct-io=on
  mkfs.ext4 -qF "$LOOP"
  mount_fs "$LOOP" fs
  head -c 3000000 /dev/urandom >fs/file
  expect "" dmctl suspend v
  (exec 2>/dev/null; echo late >fs/late) &
  late=$!
  PIDS=("$late")
  wait_until 10 blocked $late
}

say "in use: umount is refused, the file system stays frozen"
start_dmfs
daemon=$(daemon_pid)
prepare
refused "in use" dmctl umount mnt
blocked $late || fail "the writer goes on"

say "the daemon is told to end: thawed, and the image as it was"
kill -TERM "$daemon"
wait_until 30 gone "$daemon"
wait_until 10 gone $late
if fsfreeze -u fs 2>said; then fail "still frozen"; fi
grep -q "Invalid argument" said || fail "fsfreeze: $(cat said)"
e2fsck -fn raw >fsck.out 2>&1 || { cat fsck.out; fail "e2fsck"; }
if dumpe2fs -h raw 2>/dev/null | grep -q needs_recovery; then fail "a journal to replay"; fi
umount fs
wait_until 10 losetup -d "$LOOP"

say "suspended as it was, and nothing to thaw"
start_dmfs
grep -q SUSPENDED <<<"$(dmctl info v)" || fail "not suspended"
expect "" dmctl resume v
e2fsck -fn mnt/v >fsck.out 2>&1 || { cat fsck.out; fail "e2fsck"; }
dmctl remove v
rm raw

say "the daemon is killed: frozen, until fsfreeze -u"
daemon=$(daemon_pid)
prepare
kill -KILL "$daemon"
wait_until 10 gone "$daemon"
blocked $late || fail "thawed by itself"
fsfreeze -u fs || fail "fsfreeze -u"
wait_until 10 gone $late
umount fs
wait_until 10 losetup -d "$LOOP"
start_dmfs
expect "" dmctl resume v
e2fsck -fn mnt/v >fsck.out 2>&1 || { cat fsck.out; fail "e2fsck"; }
dmctl remove v

say "the daemon's own files are not frozen with it"
stop_dmfs
mkdir -p fs
start_dmfs -o "log=$FS/log"
rm raw
backing raw 32M >/dev/null
dmctl create v --table "0 65536 linear raw 0"
attach v
mkfs.ext4 -qF "$LOOP"
mount_fs "$LOOP" fs
touch fs/log
dmctl suspend v 2>said
expect "  lockfs: $FS (ext4 on $LOOP) is not frozen: dmfs itself writes to it" cat said
dmctl resume v
umount fs
detach "$LOOP"
wait_until 10 dmctl remove v
stop_dmfs

say "a freeze that waits is interrupted: active, and thawed when it is done"
# The file system's volume lies on one that is suspended.
start_dmfs
rm raw
backing raw 32M >/dev/null
dmctl create low --table "0 65536 linear raw 0"
dmctl create up --table "0 65536 linear low 0"
attach up --direct-io=on
mkfs.ext4 -qF "$LOOP"
mount_fs "$LOOP" fs
echo data >fs/file
dmctl suspend low
"$DMFS_BUILD/dmctl" suspend up & # not the function: the pid has to be dmctl's own
suspends=$!
PIDS=("$suspends")
daemon=$(daemon_pid)
in_fifreeze() { cat /proc/"$daemon"/task/*/syscall | grep -q 0xc0045877; }
wait_until 20 in_fifreeze
kill $suspends
if wait $suspends 2>/dev/null; then fail "an interrupted suspend has ended well"; fi
PIDS=()
active() { dmctl info up | grep -q ACTIVE; }
timeout 20 "$DMFS_BUILD/dmctl" clear up || fail "the interrupted command still has the device"
active || fail "up is not active"
in_fifreeze || fail "the freeze did not wait"
expect "" dmctl resume low
timeout 20 bash -c 'echo more >fs/more' || fail "not thawed"
grep -qF "\"frozen\":[\"$FS\"]" <<<"$(dmctl --json -v suspend up)" || fail "not frozen the second time"

say "a thaw that waits does not hold up resume"
dmctl suspend low
dmctl resume up 2>said
expect "  lockfs: what was frozen is still being thawed: that waits for I/O" cat said
expect "" dmctl resume low
timeout 20 bash -c 'echo most >fs/most' || fail "not thawed"

say "the daemon ends while all of it is suspended"
dmctl suspend up
dmctl suspend --nolockfs low
kill -TERM "$daemon"
wait_until 8 gone "$daemon"
if fsfreeze -u fs 2>/dev/null; then fail "still frozen"; fi
umount fs
wait_until 10 losetup -d "$LOOP"
e2fsck -fn raw >fsck.out 2>&1 || { cat fsck.out; fail "e2fsck"; }

say "without the right to"
chmod 711 "$W"
mkdir "$W/home" "$W/programs"
cp "$DMFS_BUILD/dmctl" "$DMFS_BUILD/dmfs" "$0" "$(dirname "$0")/lib.sh" "$W/programs/"
chown 65534:65534 "$W/home"
status=0
DMFS_BUILD=$W/programs unshare -m --propagation private bash "$W/programs/$(basename "$0")" unprivileged || status=$?
if [ $status = 77 ]; then say "(not tried: no mount of a user's that root sees)"; status=0; fi
exit $status
