// SPDX-License-Identifier: Apache-2.0
#include "core/control/line_reader.h"

namespace dmfs {

void LineReader::feed(std::string_view bytes) {
  if (start_ > 0) {
    buffer_.erase(0, start_);
    scanned_ -= start_;
    start_ = 0;
    // An idle client keeps nothing of a large table it once sent.
    if (buffer_.size() < buffer_.capacity() / 4) buffer_.shrink_to_fit();
  }
  buffer_.append(bytes);
}

Result<std::optional<std::string>> LineReader::next() {
  size_t end = buffer_.find('\n', scanned_);
  size_t length = (end == std::string::npos ? buffer_.size() : end) - start_;
  if (length > max_line_) {
    return Error{EMSGSIZE, "the message is longer than " + std::to_string(max_line_) + " bytes"};
  }
  if (end == std::string::npos) {
    scanned_ = buffer_.size();
    return std::optional<std::string>();
  }
  std::optional<std::string> line;
  if (start_ == 0 && end + 1 == buffer_.size()) {
    // The usual case, and the one where a copy of a 64 MiB table would hurt.
    buffer_.pop_back();
    line = std::move(buffer_);
    buffer_ = {};
    scanned_ = 0;
    return line;
  }
  line.emplace(buffer_, start_, length);
  start_ = scanned_ = end + 1;
  return line;
}

}  // namespace dmfs
