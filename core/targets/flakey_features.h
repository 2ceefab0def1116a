// SPDX-License-Identifier: Apache-2.0
// The optional features of the flakey target: the kernel's, and seed and error_sense of our own.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "core/base/args.h"
#include "core/io/bio.h"

namespace dmfs {

struct FlakeyFeatures {
  // Replaces the byte-th byte (from 1) of a read or write that has all of `flags`.
  struct CorruptByte {
    uint32_t byte = 1;
    Op direction = Op::Read;
    uint8_t value = 0;
    uint32_t flags = 0;  // the kernel's bi_opf
  };
  // Probabilities are out of this.
  static constexpr uint32_t kAlways = 1'000'000'000;

  bool error_reads = false;
  bool drop_writes = false;
  bool error_writes = false;
  std::optional<CorruptByte> corrupt_byte;
  uint32_t random_read_corrupt = 0;
  uint32_t random_write_corrupt = 0;
  std::optional<uint64_t> seed;
  std::optional<Sense> error_sense;

  // No feature says what goes wrong: then all I/O fails.
  bool fails_all() const {
    return !error_reads && !drop_writes && !error_writes && !corrupt_byte &&
           random_read_corrupt == 0 && random_write_corrupt == 0;
  }

  // [<number of words> [<word>...]], where `words` is what stands behind the intervals; what comes
  // behind the number of words is ignored, as in the kernel.
  static Result<FlakeyFeatures> parse(std::span<const std::string> words);
  // The same, in a fixed order, with a space at the end, as in the kernel.
  std::string print() const;
};

}  // namespace dmfs
