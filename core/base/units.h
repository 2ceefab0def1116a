// SPDX-License-Identifier: Apache-2.0
// Units as types: a sector is 512 bytes, everywhere and always.
#pragma once

#include <compare>
#include <cstdint>

namespace dmfs {

inline constexpr uint64_t kSectorSize = 512;
inline constexpr unsigned kSectorShift = 9;

// A position or a length in sectors; which one, the name says.
struct Sectors {
  uint64_t n = 0;

  constexpr auto operator<=>(const Sectors&) const = default;
  constexpr Sectors operator+(Sectors o) const { return {n + o.n}; }
  constexpr Sectors operator-(Sectors o) const { return {n - o.n}; }
  constexpr Sectors& operator+=(Sectors o) { n += o.n; return *this; }
  constexpr Sectors& operator-=(Sectors o) { n -= o.n; return *this; }
  // The caller knows that it fits (a device is smaller than 2^63 bytes, see kMaxDeviceSectors).
  constexpr uint64_t bytes() const { return n << kSectorShift; }
};

constexpr Sectors sectors_of_bytes(uint64_t bytes) { return {bytes >> kSectorShift}; }
constexpr bool sector_aligned(uint64_t bytes) { return (bytes & (kSectorSize - 1)) == 0; }

// A device is at most this long, as in the kernel ("too large device"): its size in bytes has to
// fit a signed 64-bit file offset.
inline constexpr Sectors kMaxDeviceSectors{(uint64_t{1} << 63) / kSectorSize - 1};

}  // namespace dmfs
