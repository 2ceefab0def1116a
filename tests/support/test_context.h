// SPDX-License-Identifier: Apache-2.0
// A TargetContext for tests of one target without a table: devices by word, events counted.
#pragma once

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/dm/target.h"
#include "tests/support/fake_clock.h"
#include "tests/support/held_file.h"

namespace dmfs::test {

class TestContext : public TargetContext {
 public:
  TestContext(Sectors begin, Sectors length) : begin_(begin), length_(length) {}

  // What the word opens from now on.
  HeldFile& add_device(const std::string& word, Sectors size) {
    auto& file = devices_[word];
    file = std::make_unique<HeldFile>(word, size);
    file->hold(false);
    return *file;
  }
  HeldFile& device(const std::string& word) { return *devices_.at(word); }
  const std::map<std::string, std::unique_ptr<HeldFile>>& devices() const { return devices_; }
  // What the target asked for, in order.
  struct Opened {
    std::string word;
    Sectors start, length;
    bool operator==(const Opened&) const = default;
  };
  const std::vector<Opened>& opened() const { return opened_; }
  unsigned events() const { return events_; }

  Sectors begin() const override { return begin_; }
  Sectors length() const override { return length_; }
  bool read_only() const override { return false; }
  Result<BackingFile*> open(const std::string& word, Sectors start, Sectors length) override {
    auto found = devices_.find(word);
    if (found == devices_.end()) {
      // The real one names the path that it has tried, which may be the word or not.
      bool absolute = word.starts_with('/');
      return Error{ENOENT, (absolute ? '\'' + word + "': " : "") + "No such file or directory"};
    }
    opened_.push_back({word, start, length});
    return static_cast<BackingFile*>(found->second.get());
  }
  Result<DeviceIdentity> identify(const std::string& word) override {
    if (devices_.count(word) == 0) return Error{ENOENT, '\'' + word + "': no such device"};
    return DeviceIdentity{word, -1, {}};
  }
  void raise_event() override { ++events_; }
  FakeClock& clock() override { return clock_; }
  bool noflush_suspending() const override { return noflush_suspending_; }
  HeldBudget& held_budget() override { return budget_; }
  std::string saved_state() const override {
    MutexLock lock(state_mutex_);
    return state_;
  }
  Status save_state(const std::string& state) override {
    MutexLock lock(state_mutex_);
    if (save_error_) return Error{save_error_, "the store fails, as the test wants"};
    state_ = state;
    return {};
  }
  // What saved_state() says; what saves answer from now on.
  void set_saved_state(std::string state, int save_error = 0) {
    MutexLock lock(state_mutex_);
    state_ = std::move(state);
    save_error_ = save_error;
  }
  void set_noflush_suspending(bool value) { noflush_suspending_ = value; }

 private:
  const Sectors begin_, length_;
  std::map<std::string, std::unique_ptr<HeldFile>> devices_;
  std::vector<Opened> opened_;
  FakeClock clock_;
  std::atomic<bool> noflush_suspending_{false};
  std::atomic<unsigned> events_{0};
  HeldBudget budget_;
  mutable Mutex state_mutex_;
  std::string state_ DM_GUARDED_BY(state_mutex_);
  int save_error_ DM_GUARDED_BY(state_mutex_) = 0;
};

inline Result<std::unique_ptr<Target>> make_target(const TargetRegistry& registry,
                                                   TestContext& context, std::string_view type,
                                                   std::string_view params) {
  const TargetType* found = registry.find(type);
  if (!found) return Error{EINVAL, std::string(type) + ": unknown target type"};
  DM_TRY(auto words, split_args(params));
  return found->create(context, words);
}

// Sends I/O to one target as the table does (see IoLimits): reads and writes split at max_io_len,
// the others once a slot, end_io asked at each end. Devices must complete inline. Sectors count
// from the start of the target.
class TargetDriver {
 public:
  TargetDriver(Target& target, const TargetContext& context)
      : target_(target), context_(context), limits_(target.limits()) {}

  int read(Sectors at, std::span<std::byte> out) { return transfer(Op::Read, at, out); }
  int write(Sectors at, std::span<std::byte> in, uint8_t flags = 0) {
    return transfer(Op::Write, at, in, flags);
  }
  int flush() { return slots(Op::Flush, {}, {}, limits_.num_flush_bios); }
  int discard(Sectors at, Sectors count) {
    if (!target_.supports_discard()) return EOPNOTSUPP;
    return slots(Op::Discard, at, count, limits_.num_discard_bios);
  }
  int write_zeroes(Sectors at, Sectors count) {
    if (limits_.num_write_zeroes_bios == 0) return EOPNOTSUPP;
    return slots(Op::WriteZeroes, at, count, limits_.num_write_zeroes_bios);
  }
  // What came with the last error.
  Sense sense() const { return sense_; }
  // Clones that came back Remapped.
  unsigned remapped() const { return remapped_; }

 private:
  struct Clone : Bio {
    using Bio::Bio;
    Target* target = nullptr;
    int result = -1;
  };

  int transfer(Op op, Sectors at, std::span<std::byte> bytes, uint8_t flags = 0) {
    iovec segment{bytes.data(), bytes.size()};
    Sectors end = at + sectors_of_bytes(bytes.size());
    int error = 0;
    for (Sectors done; at + done < end;) {
      uint64_t count = (end - at - done).n;
      uint64_t max = limits_.max_io_len.n;
      if (max > 0) count = std::min(count, max - (at + done).n % max);
      Clone clone(ended);
      clone.op = op;
      clone.flags = flags;
      clone.sector = context_.begin() + at + done;
      clone.count = {count};
      clone.data = {&segment, 1, static_cast<size_t>(done.bytes())};
      int result = send_noting_sense(clone);
      if (error == 0) error = result;
      done += Sectors{count};
    }
    return error;
  }

  int slots(Op op, Sectors at, Sectors count, uint16_t clones) {
    int error = 0;
    for (uint16_t slot = 0; slot < clones; ++slot) {
      Clone clone(ended);
      clone.op = op;
      clone.slot = slot;
      clone.sector = context_.begin() + at;
      clone.count = count;
      int result = send_noting_sense(clone);
      if (error == 0) error = result;
    }
    return error;
  }

  int send_noting_sense(Clone& clone) {
    int result = send(clone);
    if (result != 0) sense_ = clone.sense;
    return result;
  }
  int send(Clone& clone) {
    switch (target_.map(clone)) {
      case MapResult::Submitted:
        return clone.result;  // end_io is for remapped clones only
      case MapResult::Remapped:
        ++remapped_;
        clone.target = &target_;
        clone.dev->submit(clone);
        return clone.result;
      case MapResult::Requeue:
      case MapResult::Kill:
        return EIO;
    }
    return EIO;
  }

  static void ended(Bio& bio) {
    auto& clone = static_cast<Clone&>(bio);
    int error = bio.status;
    if (clone.target && clone.target->end_io(bio, error) != EndIo::Done) error = EIO;
    clone.result = error;
  }

  Target& target_;
  const TargetContext& context_;
  const IoLimits limits_;
  unsigned remapped_ = 0;
  Sense sense_;
};

}  // namespace dmfs::test
