#!/usr/bin/env bash
# Includes point down only. Each row: a folder, and what it may include besides itself.
set -uo pipefail
cd "$(dirname "$0")/.."
status=0
check() {
  local dir=$1 allowed=$2 line target
  while IFS= read -r line; do
    target=$(sed -E 's/.*#include "([^"]+)".*/\1/' <<<"$line")
    if ! grep -qE "^($allowed)/" <<<"$target"; then
      echo "upward include: $line"
      status=1
    fi
  done < <(grep -rnE '^[[:space:]]*#include "' "$dir" --include='*.h' --include='*.cc')
}
one() {  # one FILE-PATTERN DIR ALLOWED: the files of a folder that belong to another layer
  local line target
  while IFS= read -r line; do
    target=$(sed -E 's/.*#include "([^"]+)".*/\1/' <<<"$line")
    if ! grep -qE "^($3)" <<<"$target"; then
      echo "upward include: $line"
      status=1
    fi
  done < <(grep -nE '^[[:space:]]*#include "' /dev/null $(find "$2" -regextype posix-extended -regex "$1"))
}
check core/base 'core/base'
check core/io 'core/io|core/base'
check core/dm 'core/dm|core/io|core/base'
check core/targets 'core/targets|core/dm|core/io|core/base'
check core/control 'core/control|core/dm|core/base'
check store 'store|core/dm|core/base'
check cli 'cli|core/control|core/base'
check fs 'fs|core|store'
# A target sees the target interface, never the device that holds it.
one '.*\.(h|cc)' core/targets 'core/targets/|core/dm/target\.h|core/io/|core/base/'
# The store sees only its interface.
one '.*\.(h|cc)' store 'store/|core/dm/device_store\.h|core/base/'
# What dmctl links knows nothing of devices.
one '.*/(protocol|client|socket|line_reader)\.(h|cc)' core/control 'core/control/(protocol|client|socket|line_reader)\.h|core/base/'
# Libraries stay where they belong.
only() {  # only HEADER FOLDERS...
  local header=$1 hits
  shift
  hits=$(grep -rnE "#include <$header" core store cli fs --include='*.h' --include='*.cc' | grep -vE "^($(IFS='|'; echo "$*"))")
  if [ -n "$hits" ]; then
    echo "$header outside $*:"
    echo "$hits"
    status=1
  fi
}
only 'fuse' fs/
only 'sqlite3' store/
only 'liburing' core/io/
only 'CLI/' cli/ fs/
only 'nlohmann' core/control/ cli/ fs/
# std::mutex has one home.
hits=$(grep -rnE 'std::(mutex|condition_variable|lock_guard|unique_lock|scoped_lock)' core store cli fs | grep -v '^core/base/mutex.h')
if [ -n "$hits" ]; then
  echo "a bare standard mutex (use core/base/mutex.h):"
  echo "$hits"
  status=1
fi
exit $status
