// SPDX-License-Identifier: Apache-2.0
// A storage array that is not there: one logical unit behind controllers, of which each has ports.
// It says through which ports the unit can be used, and obeys the commands that change that, as
// arrays do of which the kernel has a hardware handler. All ports of one name share it.
#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "core/base/clock.h"
#include "core/base/mutex.h"
#include "core/base/result.h"
#include "core/io/bio.h"

namespace dmfs {

enum class LabKind : uint8_t { Alua, Implicit, Emc, Rdac, HpSw };

// The values are the standard's, of REPORT TARGET PORT GROUPS.
enum class LabAccess : uint8_t {
  Optimized = 0,
  NonOptimized = 1,
  Standby = 2,
  Unavailable = 3,
  Offline = 14,
  Transitioning = 15,
};

std::optional<LabKind> parse_lab_kind(std::string_view word);
const char* lab_kind_word(LabKind kind);
std::optional<LabAccess> parse_lab_access(std::string_view word);
// "<key>/<asc>/<ascq>", hexadecimal.
std::optional<Sense> parse_sense(std::string_view text);
std::string sense_text(const Sense& sense);

// The sectors behind the data of a path, through which it is sent commands.
inline constexpr uint64_t kLabMailbox = 8;
enum LabCommand : unsigned {
  kLabTestUnitReady = 0,     // read
  kLabInquiry = 1,           // read
  kLabVitalData = 2,         // read: the page that the array's handler looks at
  kLabPortGroups = 3,        // read: REPORT TARGET PORT GROUPS; write: SET TARGET PORT GROUPS
  kLabModeSelect = 4,        // write
  kLabStartUnit = 5,         // write
  kLabSignature = 7,         // read: kLabSignatureText, and zeroes
};
inline constexpr std::string_view kLabSignatureText = "dmfs lab mailbox";
using LabBlock = std::array<std::byte, 512>;

class LabArray;

// A port of an array: what a path of it is to the array. Any thread.
class LabPort {
 public:
  struct Place {
    std::string array;
    LabKind kind;
    unsigned number, controller;  // from 1
  };
  // The array of that name, a new one if there is none. EINVAL: it is of another kind.
  static Result<std::unique_ptr<LabPort>> join(Place place);
  ~LabPort();
  LabPort(const LabPort&) = delete;
  LabPort& operator=(const LabPort&) = delete;

  const Place& place() const { return place_; }

  // What the array says of I/O that reaches this port now: no valid sense is good news. A unit
  // attention is said once.
  Sense check(Clock::Time now);
  // A command to this port; `block` is what it is given, or where its answer goes.
  Sense command(unsigned command, bool write, LabBlock& block, Clock::Time now);

  struct State {
    std::string access;  // of this port
    unsigned owner;      // the controller
    uint64_t moves;      // how often that has changed
  };
  State state(Clock::Time now) const;

  // What a person does to the array. EINVAL with a sentence.
  Status set_owner(unsigned controller, Clock::Time now);
  Status set_access(unsigned controller, LabAccess access);
  void set_transition(std::chrono::milliseconds time);
  // What activations are answered from now on; nothing: they are obeyed.
  void set_refusal(std::optional<Sense> sense);

 private:
  LabPort(Place place, std::shared_ptr<LabArray> array)
      : place_(std::move(place)), array_(std::move(array)) {}

  const Place place_;
  const std::shared_ptr<LabArray> array_;  // shared by its ports
  uint64_t seen_changes_ = 0;              // guarded by the array's mutex
  friend class LabArray;
};

}  // namespace dmfs
