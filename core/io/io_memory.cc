// SPDX-License-Identifier: Apache-2.0
#include "core/io/io_memory.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace dmfs {

template <typename Fn>
void IoMemory::for_each_piece(size_t bytes, Fn fn) const {
  size_t skip = offset_;
  auto piece = [&](std::byte* start, size_t length) {
    if (skip >= length) {
      skip -= length;
      return;
    }
    size_t take = std::min(length - skip, bytes);
    fn(start + skip, take);
    bytes -= take;
    skip = 0;
  };
  switch (kind_) {
    case Kind::None:
      break;
    case Kind::Contiguous:
      if (bytes > 0) piece(static_cast<std::byte*>(single_.iov_base), single_.iov_len);
      break;
    case Kind::Scatter:
      for (size_t i = 0; i < segments_.size() && bytes > 0; ++i) {
        piece(static_cast<std::byte*>(segments_[i].iov_base), segments_[i].iov_len);
      }
      break;
    case Kind::Pages: {
      size_t first = skip / kPageSize;
      skip %= kPageSize;
      for (size_t i = first; i < pages_.size() && bytes > 0; ++i) piece(pages_[i], kPageSize);
      break;
    }
  }
  assert(bytes == 0 && "a range within the memory");
}

size_t IoMemory::bytes() const {
  size_t all = 0;
  switch (kind_) {
    case Kind::None:
      break;
    case Kind::Contiguous:
      all = single_.iov_len;
      break;
    case Kind::Scatter:
      for (const iovec& segment : segments_) all += segment.iov_len;
      break;
    case Kind::Pages:
      all = pages_.size() * kPageSize;
      break;
  }
  return all > offset_ ? all - offset_ : 0;
}

void IoMemory::copy_out(std::span<std::byte> to) const {
  std::byte* out = to.data();
  for_each_piece(to.size(), [&](std::byte* piece, size_t length) {
    std::memcpy(out, piece, length);
    out += length;
  });
}

void IoMemory::copy_in(std::span<const std::byte> from) const {
  const std::byte* in = from.data();
  for_each_piece(from.size(), [&](std::byte* piece, size_t length) {
    std::memcpy(piece, in, length);
    in += length;
  });
}

size_t IoMemory::segment_count(size_t bytes) const {
  size_t count = 0;
  for_each_piece(bytes, [&](std::byte*, size_t) { ++count; });
  return count;
}

size_t IoMemory::describe(size_t bytes, std::span<iovec> out) const {
  size_t used = 0;
  for_each_piece(bytes, [&](std::byte* piece, size_t length) {
    assert(used < out.size());
    out[used++] = {piece, length};
  });
  return used;
}

}  // namespace dmfs
