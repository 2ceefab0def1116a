// SPDX-License-Identifier: Apache-2.0
// The first bytes of a disk log, as the kernel writes them; see "Disk log" in dmfs-targets(7).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace dmfs {

struct LogHeader {
  static constexpr uint32_t kMagic = 0x4d695272;  // "rRiM" in the file
  static constexpr uint32_t kVersion = 2;
  static constexpr size_t kBytes = 16;
  static constexpr uint64_t kBitsetSector = 2;

  uint32_t magic = kMagic;
  uint32_t version = kVersion;
  uint64_t region_count = 0;
  bool operator==(const LogHeader&) const = default;

  static LogHeader decode(std::span<const std::byte, kBytes> in) {
    return {static_cast<uint32_t>(get(in.subspan<0, 4>())),
            static_cast<uint32_t>(get(in.subspan<4, 4>())), get(in.subspan<8, 8>())};
  }
  void encode(std::span<std::byte, kBytes> out) const {
    put(out.subspan<0, 4>(), magic);
    put(out.subspan<4, 4>(), version);
    put(out.subspan<8, 8>(), region_count);
  }

 private:
  static uint64_t get(std::span<const std::byte> in) {
    uint64_t value = 0;
    for (size_t i = in.size(); i-- > 0;) value = value << 8 | static_cast<uint64_t>(in[i]);
    return value;
  }
  static void put(std::span<std::byte> out, uint64_t value) {
    for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(value >> (8 * i));
  }
};

}  // namespace dmfs
