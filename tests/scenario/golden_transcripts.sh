# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by the scenarios that replay transcripts of a real kernel, each on a mount of its own.
requires_fuse
requires python3

golden_transcripts() { # NAME...: of tests/golden
  local golden transcript differs=''
  golden=$(cd "$(dirname "$0")/../golden" && pwd)
  mkdir bin
  ln -s "$DMFS_BUILD/dmctl" bin/dmsetup
  for transcript; do
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
}
