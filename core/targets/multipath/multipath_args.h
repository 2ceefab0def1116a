// SPDX-License-Identifier: Apache-2.0
// The table line of multipath: its features and their printing; the rest is read by the target
// itself, group by group.
#pragma once

#include <optional>
#include <string>

#include "core/base/args.h"
#include "core/base/result.h"
#include "core/targets/multipath/path_checker.h"

namespace dmfs {

enum class QueueMode { Request, Bio };
enum class Failback { Manual, Immediate, FollowOver, After };

struct MultipathFeatures {
  bool queue_if_no_path = false;
  std::optional<uint32_t> no_path_timeout_s;
  std::optional<uint32_t> path_timeout_ms;
  std::optional<PathChecker::Options> checker;
  Failback failback = Failback::Manual;
  std::chrono::seconds failback_after{0};
  uint32_t pg_init_retries = 0;
  std::optional<uint32_t> pg_init_delay_ms;
  bool retain_attached_hw_handler = false;
  QueueMode queue_mode = QueueMode::Request;

  // <#features> [<feature>...]; the reader stands behind them after.
  static Result<MultipathFeatures> parse(ArgReader& args);
  // The same, in the kernel's order; ends in a space.
  std::string print() const;
};

// A number in [0, most] that says how many words follow, which are there.
Result<size_t> arg_count(ArgReader& args, std::string_view what, uint64_t most);

}  // namespace dmfs
