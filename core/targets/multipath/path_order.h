// SPDX-License-Identifier: Apache-2.0
// What the selectors share that try the paths in an order which use changes: the paths that have
// not failed, and the arguments that nearly all have.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "core/base/args.h"
#include "core/base/result.h"

namespace dmfs {

// Not thread-safe.
class PathOrder {
 public:
  const std::vector<unsigned>& paths() const { return paths_; }
  bool empty() const { return paths_.empty(); }
  void append(unsigned path) { paths_.push_back(path); }
  void prepend(unsigned path) { paths_.insert(paths_.begin(), path); }
  void remove(unsigned path) { std::erase(paths_, path); }
  // The path is the last to be tried the next time.
  void use(unsigned path) {
    auto at = std::find(paths_.begin(), paths_.end(), path);
    std::rotate(at, at + 1, paths_.end());
  }

 private:
  std::vector<unsigned> paths_;
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
