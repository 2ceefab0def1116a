// SPDX-License-Identifier: Apache-2.0
#include "core/io/buffer_source.h"

#include <stdlib.h>

namespace dmfs {
namespace {

constexpr size_t kAlignment = 4096;

class Heap final : public BufferSource {
 public:
  std::byte* get(size_t bytes) override {
    void* memory = nullptr;
    return posix_memalign(&memory, kAlignment, bytes) == 0 ? static_cast<std::byte*>(memory) : nullptr;
  }
  void put(std::byte* memory) override { free(memory); }
};

}  // namespace

BufferSource& BufferSource::heap() {
  static Heap heap;
  return heap;
}

}  // namespace dmfs
