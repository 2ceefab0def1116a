// SPDX-License-Identifier: Apache-2.0
// What must survive a restart, as the core sees it. Implemented by store/ on SQLite and by a map
// in tests. Nothing here knows what a target means: a table is text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/base/result.h"
#include "core/base/units.h"

namespace dmfs {

// A text that a target has read when its table was loaded.
struct Attachment {
  std::string name;
  std::string text;
  bool operator==(const Attachment&) const = default;
};

struct TargetSpec {
  Sectors start;
  Sectors length;
  std::string type;
  std::string params;  // the words behind the type, quoted as in a table line
  std::string state = {};  // what the target wants to know after a restart; of a new table empty
  std::vector<Attachment> attachments = {};  // none when a table is loaded; with it in the store
  bool operator==(const TargetSpec&) const = default;
};

struct TableSpec {
  std::vector<TargetSpec> targets;
  bool read_only = false;
  bool ordered = false;  // a write with FUA is a barrier
  bool operator==(const TableSpec&) const = default;
};

struct Geometry {
  uint64_t cylinders = 0, heads = 0, sectors = 0, start = 0;
  bool operator==(const Geometry&) const = default;
};

enum class Slot : uint8_t { Live = 0, Inactive = 1 };

// A device without its tables.
struct DeviceRecord {
  uint32_t minor = 0;       // the key
  std::string name;         // unique
  std::string uuid;         // unique unless empty
  bool suspended = false;
  bool deferred_remove = false;
  uint32_t event_nr = 0;
  uint32_t read_ahead = 256;  // sectors
  Geometry geometry;
  bool operator==(const DeviceRecord&) const = default;
};

struct StoredDevice {
  DeviceRecord record;
  std::optional<TableSpec> live;
  std::optional<TableSpec> inactive;
};

// One step of a transaction.
struct PutDevice { DeviceRecord record; };                // insert or replace; tables stay
struct PutTable { uint32_t minor; Slot slot; TableSpec table; };  // the device exists
struct PutTargetState { uint32_t minor; Slot slot; uint64_t position; std::string state; };  // there
struct DropTable { uint32_t minor; Slot slot; };          // none there: fine
struct EraseDevice { uint32_t minor; };                   // with its tables; none there: fine
using StoreChange = std::variant<PutDevice, PutTable, PutTargetState, DropTable, EraseDevice>;

class DeviceStore {
 public:
  virtual ~DeviceStore() = default;

  // Everything, in order of minors. Called once, before the first commit.
  virtual Result<std::vector<StoredDevice>> load() = 0;
  // Applies the changes in order, all or none; durable when it returns ok. Any thread. On an
  // error (ENOSPC, EIO ...) the store is as before.
  virtual Status commit(const std::vector<StoreChange>& changes) = 0;
};

}  // namespace dmfs
