// SPDX-License-Identifier: Apache-2.0
// The memory of an IoRequest: one piece, a scatter list, or a list of pages, entered at any byte.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <span>

namespace dmfs {

inline constexpr size_t kPageSize = 4096;

// Refers to memory and lists of the caller, who keeps both until the request is returned to him.
class IoMemory {
 public:
  IoMemory() = default;  // none: for operations without data

  static IoMemory contiguous(void* start, size_t bytes) {
    IoMemory memory;
    memory.kind_ = Kind::Contiguous;
    memory.single_ = {start, bytes};
    return memory;
  }
  // Begins `offset` bytes into the segments; it may be any, also beyond the first segment.
  static IoMemory scatter(std::span<const iovec> segments, size_t offset = 0) {
    IoMemory memory;
    memory.kind_ = Kind::Scatter;
    memory.segments_ = segments;
    memory.offset_ = offset;
    return memory;
  }
  // Begins `offset` bytes into the pages, each of kPageSize bytes, and each anywhere.
  static IoMemory pages(std::span<std::byte* const> pages, size_t offset = 0) {
    IoMemory memory;
    memory.kind_ = Kind::Pages;
    memory.pages_ = pages;
    memory.offset_ = offset;
    return memory;
  }

  // How much there is from the offset on.
  size_t bytes() const;
  // Copies the first `to.size()` bytes out, or `from.size()` bytes in. There are as many.
  void copy_out(std::span<std::byte> to) const;
  void copy_in(std::span<const std::byte> from) const;

  // For I/O without a copy. How many segments describe() needs for the first `bytes`.
  size_t segment_count(size_t bytes) const;
  // Fills `out` with what covers the first `bytes`; how many were used.
  size_t describe(size_t bytes, std::span<iovec> out) const;

 private:
  enum class Kind : unsigned char { None, Contiguous, Scatter, Pages };
  // Calls fn(std::byte* start, size_t length) for each piece of the first `bytes`.
  template <typename Fn>
  void for_each_piece(size_t bytes, Fn fn) const;

  Kind kind_ = Kind::None;
  size_t offset_ = 0;  // bytes
  iovec single_{};
  std::span<const iovec> segments_;
  std::span<std::byte* const> pages_;
};

}  // namespace dmfs
