#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What I/O on the targets gave and did on a real kernel, and what they said, line by line.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires python3
golden=$(cd "$(dirname "$0")/../golden" && pwd)
mkdir bin
ln -s "$DMFS_BUILD/dmctl" bin/dmsetup
differs=''
for transcript in targets flush suspend multipath; do
  mkdir "$transcript"
  truncate -s $((2048 * 512)) "$transcript"/ram{0,1,2,3,4,5}
  STORE=$W/$transcript.db
  start_dmfs
  PATH=$W/bin:$PATH python3 "$golden/replay.py" "$golden/$transcript.txt" "$transcript" "$MNT" ||
    differs="$differs $transcript"
  # It removes what it makes, so what is left here would be a removal that did not work.
  expect "No devices found" dmctl ls
  stop_dmfs
done
[ -z "$differs" ] || fail "differs from the kernel:$differs"
