// SPDX-License-Identifier: Apache-2.0
// What the targets share that map their stretch one to one onto a range of a device.
#pragma once

#include "core/dm/target.h"

namespace dmfs {

struct DeviceRange {
  BackingFile& device;
  Sectors start;  // on the device

  // Sends the bio there; `offset` is its place within the target.
  void map(Bio& bio, Sectors offset) const {
    bio.remap(device, bio.op == Op::Flush ? Sectors{0} : start + offset);
  }
  Extent extent_at(Sectors offset, Sectors length) const {
    return device.extent_at(start + offset, length);
  }
  Sectors allocated(Sectors length) const { return device.allocated(start, length); }
};

}  // namespace dmfs
