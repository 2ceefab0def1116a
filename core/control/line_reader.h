// SPDX-License-Identifier: Apache-2.0
// Cuts a byte stream into lines with a bound on the length of a line, so on memory.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace dmfs {

// One thread. Feed what was received, then take lines until there is none; so no more is held than
// one line and the last piece fed.
class LineReader {
 public:
  explicit LineReader(size_t max_line) : max_line_(max_line) {}

  void feed(std::string_view bytes);
  // The next line without its newline; none when it is not complete yet. EMSGSIZE when it is longer
  // than max_line, complete or not: the stream is of no use after that.
  Result<std::optional<std::string>> next();
  // Whether a line has begun that has no end yet.
  bool in_line() const { return start_ < buffer_.size(); }

 private:
  size_t max_line_;
  std::string buffer_;
  size_t start_ = 0;    // of the line
  size_t scanned_ = 0;  // no newline in [start_, scanned_)
};

}  // namespace dmfs
