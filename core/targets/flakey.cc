// SPDX-License-Identifier: Apache-2.0
// flakey: linear, save that for some seconds out of some more it fails, drops or corrupts I/O.
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <random>

#include <fmt/format.h>

#include "core/targets/device_range.h"
#include "core/targets/flakey_features.h"
#include "core/targets/open_device.h"

namespace dmfs {
namespace {

// What the kernel's bi_opf would say of a bio of ours: direct I/O, as from the recorder's helper.
constexpr uint32_t kKernelWrite = 1;
constexpr uint32_t kKernelSync = 1 << 11;
constexpr uint32_t kKernelIdle = 1 << 15;
constexpr uint32_t kKernelFua = 1 << 17;
constexpr uint32_t kKernelPreflush = 1 << 18;

uint32_t kernel_flags(const Bio& bio) {
  uint32_t flags = bio.op == Op::Write ? kKernelWrite | kKernelSync | kKernelIdle : 0;
  if (bio.flags & kBioFua) flags |= kKernelFua;
  if (bio.flags & kBioPreflush) flags |= kKernelPreflush;
  return flags;
}

// Memory that a write can be sent from instead of its own, which is not ours to change. The bio's
// segment list is the copy itself, so that it is found again when the bio has ended.
class WriteCopy : private iovec {
 public:
  // Null when there is no memory.
  static WriteCopy* substitute(Bio& bio) {
    constexpr size_t kPage = 4096;
    size_t room = (bio.bytes() + kPage - 1) / kPage * kPage;
    std::unique_ptr<std::byte, Free> memory(
        static_cast<std::byte*>(std::aligned_alloc(kPage, room)));
    if (!memory) return nullptr;
    copy_from_bio(bio.data, 0, {memory.get(), bio.bytes()});
    auto* copy = new (std::nothrow) WriteCopy;
    if (!copy) return nullptr;
    copy->iov_base = memory.get();
    copy->iov_len = bio.bytes();
    copy->memory_ = std::move(memory);
    copy->original_ = bio.data;
    bio.data = {copy, 1, 0};
    return copy;
  }
  // Gives a bio that substitute() changed its own memory back.
  static void restore(Bio& bio) {
    std::unique_ptr<const WriteCopy> copy(static_cast<const WriteCopy*>(bio.data.segments));
    bio.data = copy->original_;
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  BioData original_;
};

class Flakey final : public Target {
 public:
  struct Intervals {
    uint32_t up, down;  // seconds
  };

  Flakey(TargetContext& context, DeviceRange range, Intervals intervals, FlakeyFeatures features)
      : context_(context),
        range_(range),
        intervals_(intervals),
        features_(std::move(features)),
        error_reads_(features_.error_reads || features_.fails_all()),
        error_writes_(features_.error_writes || features_.fails_all()),
        seed_(features_.seed ? *features_.seed : any_seed()),
        start_(context.clock().now()) {}

  MapResult map(Bio& bio) override {
    range_.map(bio, context_.offset(bio));
    return is_down() ? map_down(bio) : MapResult::Remapped;
  }

  // bio.mark is 0 unless the bio was mapped while down and may be corrupted: see corrupt().
  EndIo end_io(Bio& bio, int& error) override {
    if (bio.mark == 0) return EndIo::Done;
    if (bio.op == Op::Write) {
      WriteCopy::restore(bio);
    } else if (error == 0) {
      corrupt(bio, bio.mark);
    }
    return EndIo::Done;
  }

  std::string table_line() const override {
    return fmt::format("{} {} {} {} {}", quote_arg(range_.device.name()), range_.start.n,
                       intervals_.up, intervals_.down, features_.print());
  }

  IoLimits limits() const override {
    return {.num_flush_bios = 1, .num_discard_bios = 1, .num_write_zeroes_bios = 1};
  }
  bool supports_discard() const override { return range_.device.supports_discard(); }
  Extent extent_at(Sectors offset, Sectors length) const override {
    return range_.extent_at(offset, length);
  }
  Sectors allocated(Sectors length) const override { return range_.allocated(length); }

 private:
  static uint64_t any_seed() {
    std::random_device source;
    return uint64_t{source()} << 32 | source();
  }

  bool is_down() const {
    if (intervals_.down == 0) return false;
    auto elapsed =
        std::chrono::duration_cast<std::chrono::seconds>(context_.clock().now() - start_);
    return static_cast<uint64_t>(elapsed.count()) % (uint64_t{intervals_.up} + intervals_.down) >=
           intervals_.up;
  }

  MapResult map_down(Bio& bio) {
    if (bio.op == Op::Read) {
      if (error_reads_) return fail(bio);
      if (may_corrupt(Op::Read)) bio.mark = next_serial();
      return MapResult::Remapped;
    }
    // Flushes, discards and write-zeroes are writes too, without data that could be corrupted.
    if (features_.drop_writes) {
      bio.complete(0);
      return MapResult::Submitted;
    }
    if (error_writes_) return fail(bio);
    if (bio.op != Op::Write || !may_corrupt(Op::Write)) return MapResult::Remapped;
    uint32_t serial = next_serial();
    // Without memory the write goes as it is, as in the kernel.
    if (corrupts(bio, serial) && WriteCopy::substitute(bio)) {
      corrupt(bio, serial);
      bio.mark = serial;
    }
    return MapResult::Remapped;
  }

  MapResult fail(Bio& bio) const {
    if (features_.error_sense) bio.sense = *features_.error_sense;
    return MapResult::Kill;
  }

  bool may_corrupt(Op op) const {
    return (features_.corrupt_byte && features_.corrupt_byte->direction == op) ||
           random_probability(op) > 0;
  }
  uint32_t random_probability(Op op) const {
    return op == Op::Read ? features_.random_read_corrupt : features_.random_write_corrupt;
  }
  bool corrupts_fixed(const Bio& bio) const {
    const auto& fixed = features_.corrupt_byte;
    return fixed && fixed->direction == bio.op && fixed->byte <= bio.bytes() &&
           (kernel_flags(bio) & fixed->flags) == fixed->flags;
  }
  bool corrupts_at_random(const Bio& bio, uint32_t serial) const {
    return draw(serial, 0) % FlakeyFeatures::kAlways < random_probability(bio.op);
  }
  bool corrupts(const Bio& bio, uint32_t serial) const {
    return corrupts_fixed(bio) || corrupts_at_random(bio, serial);
  }

  // Does to the bio's memory what the features say.
  void corrupt(Bio& bio, uint32_t serial) const {
    if (corrupts_fixed(bio)) {
      set_byte(bio, features_.corrupt_byte->byte - 1, features_.corrupt_byte->value);
    }
    if (corrupts_at_random(bio, serial)) {
      set_byte(bio, draw(serial, 1) % bio.bytes(), static_cast<uint8_t>(draw(serial, 2)));
    }
  }
  static void set_byte(Bio& bio, size_t at, uint8_t value) {
    auto byte = static_cast<std::byte>(value);
    copy_to_bio(bio.data, at, {&byte, 1});
  }

  // Every bio that could be corrupted has a number, in the order of arrival, from which all that
  // is random about it follows: a run that sends the same I/O in the same order is the same run,
  // in whatever order it ends. Never 0.
  uint32_t next_serial() {
    uint32_t serial;
    do {
      serial = last_serial_.fetch_add(1, std::memory_order_relaxed) + 1;
    } while (serial == 0);
    return serial;
  }
  // The splitmix64 sequence of the seed at a place that no other draw has.
  uint64_t draw(uint32_t serial, uint32_t which) const {
    uint64_t z = seed_ + (uint64_t{serial} * 4 + which) * 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  // Constant after construction.
  TargetContext& context_;
  const DeviceRange range_;
  const Intervals intervals_;
  const FlakeyFeatures features_;
  const bool error_reads_;
  const bool error_writes_;
  const uint64_t seed_;
  const Clock::Time start_;
  // Own synchronisation.
  std::atomic<uint32_t> last_serial_{0};
};

// <device> <offset> <up interval> <down interval> [<#feature args> [<feature arg>...]]
Result<std::unique_ptr<Target>> create(TargetContext& context, std::span<const std::string> words) {
  constexpr std::string_view kCount = "Invalid argument count";
  ArgReader args("flakey", words);
  if (args.size() < 4) return args.fail(kCount);
  DM_TRY(auto word, args.word(kCount));
  DM_TRY(Sectors start, args.sectors("Invalid device sector"));
  DM_TRY(uint64_t up, args.number("Invalid up interval", 0, UINT32_MAX));
  DM_TRY(uint64_t down, args.number("Invalid down interval", 0, UINT32_MAX));
  Flakey::Intervals intervals{static_cast<uint32_t>(up), static_cast<uint32_t>(down)};
  // A sum of 2^32 is 0 in the kernel, and has its text.
  if (intervals.up + intervals.down == 0) {
    return args.fail("Total (up + down) interval is zero");
  }
  if (up + down > UINT32_MAX) return args.fail("Interval overflow");
  DM_TRY(auto features, FlakeyFeatures::parse(words.subspan(4)));
  DM_TRY(BackingFile * device,
         open_device(context, args, "Device lookup failed", word, start, context.length()));
  return std::unique_ptr<Target>(
      std::make_unique<Flakey>(context, DeviceRange{*device, start}, intervals, features));
}

}  // namespace

extern const TargetType kFlakeyTarget;
const TargetType kFlakeyTarget{"flakey", {1, 5, 0}, create};

}  // namespace dmfs
