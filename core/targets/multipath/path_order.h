// SPDX-License-Identifier: Apache-2.0
// What the selectors share that try the paths in an order which use changes: the paths that have
// not failed, and the arguments that nearly all have.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "core/base/args.h"
#include "core/base/result.h"

namespace dmfs {

// Not thread-safe, save only().
class PathOrder {
 public:
  static constexpr int kNone = -1;

  const std::vector<unsigned>& paths() const { return paths_; }
  bool empty() const { return paths_.empty(); }
  // The path, when there is but one: nothing to choose, so no lock is needed. Else kNone. Any thread.
  int only() const { return only_.load(std::memory_order_relaxed); }
  void append(unsigned path) {
    paths_.push_back(path);
    note_only();
  }
  void prepend(unsigned path) {
    paths_.insert(paths_.begin(), path);
    note_only();
  }
  void remove(unsigned path) {
    std::erase(paths_, path);
    note_only();
  }
  // The path is the last to be tried the next time.
  void use(unsigned path) {
    auto at = std::find(paths_.begin(), paths_.end(), path);
    std::rotate(at, at + 1, paths_.end());
  }

 private:
  void note_only() {
    only_.store(paths_.size() == 1 ? static_cast<int>(paths_[0]) : kNone,
                std::memory_order_relaxed);
  }

  std::vector<unsigned> paths_;
  std::atomic<int> only_{kNone};
};

inline Error selector_error(std::string_view selector, std::string_view what,
                            std::string_view word = {}) {
  if (word.empty()) return Error{EINVAL, fmt::format("{} ps: {}", selector, what)};
  return Error{EINVAL, fmt::format("{} ps: {}: '{}'", selector, what, word)};
}

// An unsigned int of the kernel's.
inline Result<uint32_t> selector_number(std::string_view selector, std::string_view what,
                                        const std::string& word) {
  uint64_t value = 0;
  if (!parse_u64(word, value) || value > UINT32_MAX) return selector_error(selector, what, word);
  return static_cast<uint32_t>(value);
}

// [<repeat count>] at the front of `args`, of which there are `most` at most. The kernel takes what
// is more than 1 for 1; where there is none it is `if_none`.
inline Result<uint32_t> repeat_count(std::string_view selector, std::span<const std::string> args,
                                     size_t most, uint32_t if_none = 1) {
  if (args.size() > most) {
    return selector_error(selector, "incorrect number of arguments", args[most]);
  }
  if (args.empty()) return if_none;
  DM_TRY(uint32_t count, selector_number(selector, "invalid repeat count", args[0]));
  return std::min(count, 1u);
}

}  // namespace dmfs
