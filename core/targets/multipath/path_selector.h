// SPDX-License-Identifier: Apache-2.0
// Which path of a priority group the next bio takes. To write one: a class, a
// `const PathSelectorType` and a line in path_selectors.cc.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/base/clock.h"
#include "core/base/registry.h"
#include "core/base/result.h"

namespace dmfs {

// Paths are numbered from 0 in the order in which they were added. Functions without a note: any
// thread, many at a time; the caller may hold its locks, and none is taken but the selector's own.
class PathSelector {
 public:
  static constexpr int kNone = -1;

  virtual ~PathSelector() = default;

  // While the table is built. An error is the kernel's text ("round-robin ps: invalid repeat
  // count") and the word.
  virtual Status add_path(std::span<const std::string> args) = 0;

  // A path that has not failed, for so many bytes; kNone when there is none.
  virtual int select(uint64_t bytes) = 0;
  // One at a time, in turns: a path is failed once before it is reinstated.
  virtual void fail_path(unsigned path) = 0;
  virtual void reinstate_path(unsigned path) = 0;

  // Around each bio, of types that have `counts`. `started` is that of start_io.
  virtual void start_io(unsigned path, uint64_t bytes) { (void)path; (void)bytes; }
  virtual void end_io(unsigned path, uint64_t bytes, Clock::Time started) {
    (void)path; (void)bytes; (void)started;
  }

  // "<#args> <arg>..." of the selector, in both kinds of status.
  virtual std::string args() const { return "0"; }
  // Of a path: PathSelectorType::table_args words for a table, info_args for a status.
  virtual std::string path_table(unsigned path) const { (void)path; return {}; }
  virtual std::string path_info(unsigned path) const { (void)path; return {}; }
};

struct PathSelectorType {
  std::string_view name;
  unsigned table_args, info_args;
  bool counts;  // wants start_io and end_io
  bool timed;   // wants to know when a bio was started
  // `clock` outlives the selector.
  Result<std::unique_ptr<PathSelector>> (*create)(Clock& clock, std::span<const std::string> args);
};

using PathSelectorRegistry = Registry<PathSelectorType>;

// All that dmfs has.
const PathSelectorRegistry& path_selectors();

}  // namespace dmfs
