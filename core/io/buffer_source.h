// SPDX-License-Identifier: Apache-2.0
// Where the big pieces of memory of I/O come from. A seam: tests put a source here that has run dry.
#pragma once

#include <cstddef>

namespace dmfs {

class BufferSource {
 public:
  virtual ~BufferSource() = default;
  // Memory that is aligned to a page, or nullptr. `bytes` > 0. Any thread; the caller holds no lock.
  virtual std::byte* get(size_t bytes) = 0;
  // Gives back what get() returned. Any thread; the caller holds no lock.
  virtual void put(std::byte* memory) = 0;

  // The heap, for everybody.
  static BufferSource& heap();
};

}  // namespace dmfs
