// SPDX-License-Identifier: Apache-2.0
// What a target of several paths says of them, for `dmctl paths`.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace dmfs {

struct PathReport {
  std::string name;         // as `table` prints it, not quoted
  bool active = true;       // it has not failed
  std::string checker;      // what its checker said last; empty: there is none
  uint64_t in_flight = 0;   // requests that it has been given and has not ended
  uint64_t stale = 0;       // of these, writes that are overdue and were given to another path
  uint64_t fail_count = 0;
  uint64_t errors = 0;      // requests that it has failed
  std::chrono::nanoseconds latency{0};  // moving average of what went well; 0: nothing did yet
};

struct PathGroupReport {
  enum class State : uint8_t { Active, Enabled, Disabled };
  unsigned number = 0;      // from 1
  State state = State::Enabled;
  std::string selector;     // and its arguments
  std::vector<PathReport> paths;
};

struct PathsReport {
  std::string features;     // the words, without their count
  std::string handler;      // the same
  bool queueing = false;    // what finds no path waits
  uint64_t waiting = 0;     // requests that wait in the target
  std::vector<PathGroupReport> groups;
};

}  // namespace dmfs
