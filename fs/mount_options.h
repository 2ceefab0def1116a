// SPDX-License-Identifier: Apache-2.0
// What stands behind -o, as of mount(8) and fstab.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/io/io_service.h"

namespace dmfs {

struct MountOptions {
  bool read_only = false;
  bool allow_other = false;
  bool allow_root = false;
  bool default_permissions = false;
  bool cache = false;  // the kernel keeps pages of volumes
  bool direct_backing = false;  // backing files are opened O_DIRECT
  Engine engine = Engine::Auto;
  std::string fsname;  // empty: the store's path
  std::optional<mode_t> mode;
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::optional<unsigned> threads;
  std::optional<unsigned> max_background;
  std::optional<uint64_t> held_limit;  // bytes
  std::string handlers;  // a directory of hardware handlers, before all others; empty: none
  std::string log;  // empty: <store>.log, or stderr in the foreground
  std::string log_level = "info";
};

inline constexpr unsigned kMaxThreads = 512;
inline constexpr unsigned kMaxMaxBackground = 65535;  // of the FUSE protocol

// `lists`: each "word,name=value,..."; a backslash makes the next character part of a word. Words
// of mount(8) that mean nothing here are let pass. An error names the word.
Result<MountOptions> parse_mount_options(const std::vector<std::string>& lists);

}  // namespace dmfs
