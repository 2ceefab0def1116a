// SPDX-License-Identifier: Apache-2.0
#include "core/targets/lab/lab_array.h"

#include <charconv>
#include <cstring>

#include <fmt/format.h>

namespace dmfs {
namespace {

constexpr std::pair<LabKind, const char*> kKinds[] = {{LabKind::Alua, "alua"},
                                                      {LabKind::Implicit, "implicit"},
                                                      {LabKind::Emc, "emc"},
                                                      {LabKind::Rdac, "rdac"},
                                                      {LabKind::HpSw, "hp_sw"}};
constexpr std::pair<LabAccess, const char*> kAccesses[] = {
    {LabAccess::Optimized, "optimized"},     {LabAccess::NonOptimized, "non-optimized"},
    {LabAccess::Standby, "standby"},         {LabAccess::Unavailable, "unavailable"},
    {LabAccess::Offline, "offline"},         {LabAccess::Transitioning, "transitioning"}};

const char* access_word(LabAccess access) {
  for (auto [value, word] : kAccesses) {
    if (value == access) return word;
  }
  return "unknown";
}

constexpr Sense kGood{};
constexpr Sense kBecomingReady{2, 0x04, 0x01, true};
constexpr Sense kNeedsStart{2, 0x04, 0x02, true};       // initializing command required
constexpr Sense kManualIntervention{2, 0x04, 0x03, true};
constexpr Sense kInTransition{2, 0x04, 0x0a, true};
constexpr Sense kInStandby{2, 0x04, 0x0b, true};
constexpr Sense kUnavailable{2, 0x04, 0x0c, true};
constexpr Sense kOffline{2, 0x04, 0x12, true};
constexpr Sense kNotTheOwner{5, 0x94, 0x01, true};      // RDAC's
constexpr Sense kInvalidCommand{5, 0x20, 0x00, true};
constexpr Sense kInvalidParameter{5, 0x26, 0x00, true};
constexpr Sense kWasReset{6, 0x29, 0x00, true};
constexpr Sense kAccessChanged{6, 0x2a, 0x06, true};

bool is_alua(LabKind kind) { return kind == LabKind::Alua || kind == LabKind::Implicit; }

void put(LabBlock& block, size_t at, unsigned value) { block[at] = static_cast<std::byte>(value); }
unsigned get(const LabBlock& block, size_t at) { return std::to_integer<unsigned>(block[at]); }

}  // namespace

// Lock order: that of the arrays > mutex_, which is a leaf.
class LabArray {
 public:
  LabArray(std::string name, LabKind kind) : name_(std::move(name)), kind_(kind) {}

  LabKind kind() const { return kind_; }
  const std::string& name() const { return name_; }

  void join(LabPort& port) DM_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    unsigned controller = port.place_.controller;
    groups_.try_emplace(controller, controller == owner_ ? LabAccess::Optimized
                                                         : LabAccess::NonOptimized);
    ports_.emplace(port.place_.number, controller);
    port.seen_changes_ = changes_;
  }
  void leave(const LabPort& port) DM_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    auto [begin, end] = ports_.equal_range(port.place_.number);
    for (auto at = begin; at != end; ++at) {
      if (at->second != port.place_.controller) continue;
      ports_.erase(at);
      return;
    }
  }

  Sense check(LabPort& port, Clock::Time now) DM_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return check_locked(port, now);
  }

  Sense command(LabPort& port, unsigned command, bool write, LabBlock& block, Clock::Time now)
      DM_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (!write) block.fill(std::byte{0});
    switch (command) {
      case kLabTestUnitReady:
        return write ? kInvalidCommand : check_locked(port, now);
      case kLabInquiry:
        return write ? kInvalidCommand : inquiry(block);
      case kLabVitalData:
        return write ? kInvalidCommand : vital_data(port, block);
      case kLabPortGroups:
        if (!is_alua(kind_)) return kInvalidCommand;
        return write ? set_groups(port, block, now) : report_groups(block, now);
      case kLabModeSelect:
        return write ? mode_select(port, block, now) : kInvalidCommand;
      case kLabStartUnit:
        return write && kind_ == LabKind::HpSw ? start_unit(port, now) : kInvalidCommand;
      case kLabSignature:
        if (write) return kInvalidCommand;
        std::memcpy(block.data(), kLabSignatureText.data(), kLabSignatureText.size());
        return kGood;
      default:
        return kInvalidCommand;
    }
  }

  LabPort::State state(const LabPort& port, Clock::Time now) const DM_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    unsigned controller = port.place_.controller;
    const char* access = is_alua(kind_) || now < moving_until_ ? access_word(access_of(controller, now))
                         : controller == owner_                ? "active"
                                                               : "ghost";
    return {access, owner_, moves_};
  }

  Status set_owner(unsigned controller, Clock::Time now) DM_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    DM_TRY_STATUS(known(controller));
    if (is_alua(kind_)) groups_[controller] = LabAccess::NonOptimized;
    move_to(controller, nullptr, now);
    return {};
  }
  Status set_access(unsigned controller, LabAccess access) DM_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (!is_alua(kind_)) {
      return Error{EINVAL, fmt::format("lab: the ports of array '{}', which is {}, have no access state",
                                       name_, lab_kind_word(kind_))};
    }
    DM_TRY_STATUS(known(controller));
    groups_[controller] = access;
    ++changes_;
    return {};
  }
  void set_transition(std::chrono::milliseconds time) DM_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    transition_ = time;
  }
  void set_refusal(std::optional<Sense> sense) DM_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    refusal_ = sense;
  }

 private:
  Status known(unsigned controller) DM_REQUIRES(mutex_) {
    if (groups_.contains(controller)) return {};
    return Error{EINVAL, fmt::format("lab: array '{}' has no controller '{}'", name_, controller)};
  }

  LabAccess access_of(unsigned controller, Clock::Time now) const DM_REQUIRES(mutex_) {
    if (now < moving_until_) return LabAccess::Transitioning;
    return groups_.find(controller)->second;
  }

  Sense check_locked(LabPort& port, Clock::Time now) DM_REQUIRES(mutex_) {
    unsigned controller = port.place_.controller;
    bool changed = std::exchange(port.seen_changes_, changes_) != changes_;
    switch (kind_) {
      case LabKind::Alua:
      case LabKind::Implicit:
        if (changed) return kAccessChanged;
        switch (access_of(controller, now)) {
          case LabAccess::Optimized:
          case LabAccess::NonOptimized:
            return kGood;
          case LabAccess::Standby:
            return kInStandby;
          case LabAccess::Unavailable:
            return kUnavailable;
          case LabAccess::Offline:
            return kOffline;
          case LabAccess::Transitioning:
            return kInTransition;
        }
        return kGood;
      case LabKind::Emc:
        if (now < moving_until_) return kBecomingReady;
        if (controller != owner_) return kManualIntervention;
        return changed ? kWasReset : kGood;
      case LabKind::Rdac:
        if (now < moving_until_) return kBecomingReady;
        return controller == owner_ ? kGood : kNotTheOwner;
      case LabKind::HpSw:
        if (now < moving_until_) return kBecomingReady;
        return controller == owner_ ? kGood : kNeedsStart;
    }
    return kGood;
  }

  // By a command to `port`, or by nobody's.
  void move_to(unsigned controller, LabPort* port, Clock::Time now) DM_REQUIRES(mutex_) {
    if (is_alua(kind_)) {
      // The others become what this one was, if that is something to fall back to.
      LabAccess before = std::exchange(groups_[controller], LabAccess::Optimized);
      if (before != LabAccess::Standby) before = LabAccess::NonOptimized;
      for (auto& [number, access] : groups_) {
        if (number != controller && access == LabAccess::Optimized) access = before;
      }
    }
    if (owner_ != controller) ++moves_;
    owner_ = controller;
    ++changes_;
    if (port && is_alua(kind_)) port->seen_changes_ = changes_;
    if (transition_.count() > 0) moving_until_ = now + transition_;
  }

  Sense inquiry(LabBlock& block) const DM_REQUIRES(mutex_) {
    put(block, 2, 6);   // SPC-4
    put(block, 4, 31);  // what follows
    unsigned ways = kind_ == LabKind::Alua ? 3 : kind_ == LabKind::Implicit ? 1 : 0;
    put(block, 5, ways << 4);
    std::string text = fmt::format("{:8}{:16}{:4}", "DMFS", std::string("LAB ") + lab_kind_word(kind_), 1);
    std::memcpy(&block[8], text.data(), 28);
    return kGood;
  }

  Sense vital_data(const LabPort& port, LabBlock& block) const DM_REQUIRES(mutex_) {
    unsigned controller = port.place_.controller, number = port.place_.number;
    bool owned = controller == owner_;
    switch (kind_) {
      case LabKind::Alua:
      case LabKind::Implicit:
        // Device identification: relative target port, target port group.
        put(block, 1, 0x83);
        put(block, 3, 16);
        put(block, 4, 1), put(block, 5, 0x14), put(block, 7, 4);
        put(block, 10, number >> 8), put(block, 11, number & 255);
        put(block, 12, 1), put(block, 13, 0x15), put(block, 15, 4);
        put(block, 18, controller >> 8), put(block, 19, controller & 255);
        return kGood;
      case LabKind::Emc:
        put(block, 1, 0xc0);
        put(block, 3, 0x60);
        put(block, 4, owned ? 2 : 1);
        put(block, 5, 0);  // the default one
        put(block, 7, number & 255);
        put(block, 8, controller - 1);
        return kGood;
      case LabKind::Rdac:
        put(block, 1, 0xc9);
        put(block, 3, 44);
        std::memcpy(&block[4], "vace", 4);
        put(block, 8, owned ? 1 : 0);
        put(block, 9, controller == 1 ? 1 : 0);
        return kGood;
      case LabKind::HpSw:
        return kInvalidCommand;
    }
    return kInvalidCommand;
  }

  Sense report_groups(LabBlock& block, Clock::Time now) const DM_REQUIRES(mutex_) {
    constexpr unsigned kSupported = 0xcf;  // all states but LBA dependent
    size_t at = 4;
    for (const auto& [controller, access] : groups_) {
      std::map<unsigned, bool> numbers;
      for (auto [number, of] : ports_) {
        if (of == controller) numbers[number] = true;
      }
      if (at + 8 + 4 * numbers.size() > block.size()) break;
      put(block, at, static_cast<unsigned>(access_of(controller, now)) | (controller == 1 ? 0x80 : 0));
      put(block, at + 1, kSupported);
      put(block, at + 2, controller >> 8), put(block, at + 3, controller & 255);
      put(block, at + 5, kind_ == LabKind::Implicit ? 2 : 1);
      put(block, at + 7, static_cast<unsigned>(numbers.size()));
      at += 8;
      for (auto [number, there] : numbers) {
        put(block, at + 2, number >> 8), put(block, at + 3, number & 255);
        at += 4;
      }
    }
    put(block, 2, static_cast<unsigned>(at - 4) >> 8);
    put(block, 3, static_cast<unsigned>(at - 4) & 255);
    return kGood;
  }

  Sense set_groups(LabPort& port, const LabBlock& block, Clock::Time now) DM_REQUIRES(mutex_) {
    if (kind_ == LabKind::Implicit) return kInvalidCommand;
    if (refusal_) return *refusal_;
    if (now < moving_until_) return kInTransition;
    unsigned controller = get(block, 6) << 8 | get(block, 7);
    if ((get(block, 4) & 15) != 0 || !groups_.contains(controller)) return kInvalidParameter;
    LabAccess access = groups_[controller];
    if (access == LabAccess::Unavailable) return kUnavailable;
    if (access == LabAccess::Offline) return kOffline;
    if (access == LabAccess::Transitioning) return kInTransition;
    if (access != LabAccess::Optimized) move_to(controller, &port, now);
    return kGood;
  }

  Sense mode_select(LabPort& port, const LabBlock& block, Clock::Time now) DM_REQUIRES(mutex_) {
    bool good;
    if (kind_ == LabKind::Emc) {
      // Behind a header of 8 bytes, or of 4 when it is short.
      good = get(block, 8) == 0x22 || get(block, 4) == 0x22;
    } else if (kind_ == LabKind::Rdac) {
      good = (get(block, 8) & 0x3f) == 0x2c;
    } else {
      return kInvalidCommand;
    }
    if (!good) return kInvalidParameter;
    if (refusal_) return *refusal_;
    if (now < moving_until_) return kBecomingReady;
    if (port.place_.controller != owner_) move_to(port.place_.controller, &port, now);
    return kGood;
  }

  Sense start_unit(LabPort& port, Clock::Time now) DM_REQUIRES(mutex_) {
    if (refusal_) return *refusal_;
    if (now < moving_until_) return kManualIntervention;
    if (port.place_.controller != owner_) move_to(port.place_.controller, &port, now);
    return kGood;
  }

  const std::string name_;
  const LabKind kind_;

  mutable Mutex mutex_;
  std::map<unsigned, LabAccess> groups_ DM_GUARDED_BY(mutex_);      // by controller
  std::multimap<unsigned, unsigned> ports_ DM_GUARDED_BY(mutex_);   // number, controller
  unsigned owner_ DM_GUARDED_BY(mutex_) = 1;
  uint64_t moves_ DM_GUARDED_BY(mutex_) = 0;
  uint64_t changes_ DM_GUARDED_BY(mutex_) = 0;  // of access, that ports have a unit attention for
  std::chrono::milliseconds transition_ DM_GUARDED_BY(mutex_){0};
  Clock::Time moving_until_ DM_GUARDED_BY(mutex_){};
  std::optional<Sense> refusal_ DM_GUARDED_BY(mutex_);
};

namespace {

// The arrays of this process, as long as they have ports.
struct LabArrays {
  Mutex mutex;
  std::map<std::string, std::weak_ptr<LabArray>> arrays DM_GUARDED_BY(mutex);
};
LabArrays& lab_arrays() {
  static LabArrays arrays;
  return arrays;
}

}  // namespace

Result<std::unique_ptr<LabPort>> LabPort::join(Place place) {
  LabArrays& all = lab_arrays();
  MutexLock lock(all.mutex);
  std::erase_if(all.arrays, [](const auto& entry) { return entry.second.expired(); });
  std::shared_ptr<LabArray> array = all.arrays[place.array].lock();
  if (!array) {
    array = std::make_shared<LabArray>(place.array, place.kind);
    all.arrays[place.array] = array;
  } else if (array->kind() != place.kind) {
    return Error{EINVAL, fmt::format("lab: array '{}' is of kind {}, not '{}'", place.array,
                                     lab_kind_word(array->kind()), lab_kind_word(place.kind))};
  }
  std::unique_ptr<LabPort> port(new LabPort(std::move(place), std::move(array)));
  port->array_->join(*port);
  return port;
}

LabPort::~LabPort() { array_->leave(*this); }

Sense LabPort::check(Clock::Time now) { return array_->check(*this, now); }
Sense LabPort::command(unsigned command, bool write, LabBlock& block, Clock::Time now) {
  return array_->command(*this, command, write, block, now);
}
LabPort::State LabPort::state(Clock::Time now) const { return array_->state(*this, now); }
Status LabPort::set_owner(unsigned controller, Clock::Time now) {
  return array_->set_owner(controller, now);
}
Status LabPort::set_access(unsigned controller, LabAccess access) {
  return array_->set_access(controller, access);
}
void LabPort::set_transition(std::chrono::milliseconds time) { array_->set_transition(time); }
void LabPort::set_refusal(std::optional<Sense> sense) { array_->set_refusal(sense); }

std::optional<LabKind> parse_lab_kind(std::string_view word) {
  for (auto [kind, text] : kKinds) {
    if (word == text) return kind;
  }
  return std::nullopt;
}

const char* lab_kind_word(LabKind kind) {
  for (auto [value, word] : kKinds) {
    if (value == kind) return word;
  }
  return "unknown";
}

std::optional<LabAccess> parse_lab_access(std::string_view word) {
  for (auto [access, text] : kAccesses) {
    if (word == text) return access;
  }
  return std::nullopt;
}

std::optional<Sense> parse_sense(std::string_view text) {
  unsigned numbers[3] = {};
  const char* at = text.data();
  const char* end = at + text.size();
  for (unsigned i = 0; i < 3; ++i) {
    if (i > 0 && (at == end || *at++ != '/')) return std::nullopt;
    auto [stop, error] = std::from_chars(at, end, numbers[i], 16);
    if (error != std::errc{} || numbers[i] > (i == 0 ? 15 : 255)) return std::nullopt;
    at = stop;
  }
  if (at != end) return std::nullopt;
  return Sense{static_cast<uint8_t>(numbers[0]), static_cast<uint8_t>(numbers[1]),
               static_cast<uint8_t>(numbers[2]), true};
}

std::string sense_text(const Sense& sense) {
  return fmt::format("{:x}/{:02x}/{:02x}", sense.key, sense.asc, sense.ascq);
}

}  // namespace dmfs
