// SPDX-License-Identifier: Apache-2.0
// delay: passes I/O on after a while; reads, writes and flushes each to a device of their own.
#include <array>
#include <map>

#include <fmt/format.h>

#include "core/base/alarm.h"
#include "core/base/mutex.h"
#include "core/targets/open_device.h"

namespace dmfs {
namespace {

constexpr BioCancel kAll{.origin = nullptr, .error = 0};

enum Kind : uint8_t { kRead, kWrite, kFlush, kKinds };

Kind kind_of(const Bio& bio) {
  if (bio.op == Op::Read) return kRead;
  return bio.op == Op::Flush || (bio.flags & kBioPreflush) ? kFlush : kWrite;
}

struct Way {
  BackingFile* device = nullptr;
  Sectors start;
  std::chrono::milliseconds delay{0};
};

class Delay final : public Target {
 public:
  Delay(TargetContext& context, const std::array<Way, kKinds>& ways, size_t given)
      : context_(context), ways_(ways), given_(given), alarm_(context.clock(), [this] { due(); }) {}

  MapResult map(Bio& bio) override {
    Kind kind = kind_of(bio);
    const Way& way = ways_[kind];
    bio.remap(*way.device,
              bio.op == Op::Flush ? Sectors{0} : way.start + context_.offset(bio));
    if (way.delay.count() == 0) return MapResult::Remapped;
    Clock::Time at = context_.clock().now() + way.delay;
    int cancelled;
    {
      MutexLock lock(mutex_);
      if (passes_) return MapResult::Remapped;
      cancelled = bio.cancelled();
      if (!cancelled) {
        stamp_held(bio);
        waiting_.emplace(at, Waiting{&bio, kind});
        ++counts_[kind];
        alarm_.set(waiting_.begin()->first);
        return MapResult::Submitted;
      }
    }
    bio.complete(cancelled);
    return MapResult::Submitted;
  }

  size_t cancel(const BioCancel& cancel) override {
    BioList taken = take(Clock::Time::max(), cancel);
    return taken.complete_all(cancel.error);
  }

  void list_held(HeldList& list) const override {
    MutexLock lock(mutex_);
    for (const auto& [at, waiting] : waiting_) {
      const Bio& bio = *waiting.bio;
      Sectors start = ways_[waiting.kind].start;
      list.add("delay", bio, bio.op == Op::Flush ? Sectors{0} : bio.sector - start + context_.begin());
    }
  }
  std::string freed_by() const override { return "goes by itself, or at a suspend"; }

  // What waits goes at once, and until the resume nothing waits any more.
  void presuspend() override {
    {
      MutexLock lock(mutex_);
      passes_ = true;
    }
    send(take(Clock::Time::max(), kAll));
  }
  void presuspend_undo() override { resume(); }
  void resume() override {
    MutexLock lock(mutex_);
    passes_ = false;
  }

  std::string table_line() const override {
    std::string line;
    for (size_t i = 0; i < given_; ++i) {
      const Way& way = ways_[i];
      line += fmt::format("{}{} {} {}", i ? " " : "", quote_arg(way.device->name()), way.start.n,
                          way.delay.count());
    }
    return line;
  }
  // How many reads, writes and flushes wait.
  std::string status_line() const override {
    MutexLock lock(mutex_);
    return fmt::format("{} {} {}", counts_[kRead], counts_[kWrite], counts_[kFlush]);
  }

  IoLimits limits() const override {
    return {.num_flush_bios = 1, .num_discard_bios = 1, .num_write_zeroes_bios = 1};
  }
  bool supports_discard() const override { return ways_[kWrite].device->supports_discard(); }

  Extent extent_at(Sectors offset, Sectors length) const override {
    return ways_[kRead].device->extent_at(ways_[kRead].start + offset, length);
  }
  Sectors allocated(Sectors length) const override {
    return ways_[kRead].device->allocated(ways_[kRead].start, length);
  }

 private:
  struct Waiting {
    Bio* bio;
    Kind kind;
  };

  void due() {
    send(take(context_.clock().now(), kAll));
    MutexLock lock(mutex_);
    if (!waiting_.empty()) alarm_.set(waiting_.begin()->first);
  }

  // Takes out what is due at `until` and wanted, in order of time.
  BioList take(Clock::Time until, const BioCancel& wanted) {
    BioList taken;
    MutexLock lock(mutex_);
    for (auto at = waiting_.begin(); at != waiting_.end() && at->first <= until;) {
      auto [bio, kind] = at->second;
      if (!wanted.wants(*bio)) {
        ++at;
        continue;
      }
      taken.push_back(*bio);
      --counts_[kind];
      at = waiting_.erase(at);
    }
    return taken;
  }
  static void send(BioList bios) {
    while (Bio* bio = bios.pop_front()) bio->dev->submit(*bio);
  }

  // Constant after construction.
  TargetContext& context_;
  const std::array<Way, kKinds> ways_;
  const size_t given_;  // how many of the ways the table line has

  // Guarded by mutex_, under which only the alarm and the clock are called.
  mutable Mutex mutex_;
  std::multimap<Clock::Time, Waiting> waiting_ DM_GUARDED_BY(mutex_);  // remapped already
  std::array<uint32_t, kKinds> counts_ DM_GUARDED_BY(mutex_){};
  bool passes_ DM_GUARDED_BY(mutex_) = false;

  // Own synchronisation.
  Alarm alarm_;  // last: its work uses all that stands above
};

// <device> <offset> <delay> [<write device> <write offset> <write delay>
//                            [<flush device> <flush offset> <flush delay>]]
Result<std::unique_ptr<Target>> create(TargetContext& context, std::span<const std::string> words) {
  ArgReader args("delay", words);
  if (args.size() != 3 && args.size() != 6 && args.size() != 9) {
    return args.fail("Requires exactly 3, 6 or 9 arguments");
  }
  std::array<Way, kKinds> ways;
  size_t given = words.size() / 3;
  for (size_t i = 0; i < given; ++i) {
    DM_TRY(auto word, args.word("Device lookup failed"));
    DM_TRY(ways[i].start, args.sectors("Invalid device sector"));
    DM_TRY(uint64_t delay, args.number("Invalid delay", 0, UINT32_MAX));
    ways[i].delay = std::chrono::milliseconds(delay);
    DM_TRY(ways[i].device, open_device(context, args, "Device lookup failed", word, ways[i].start,
                                       context.length()));
  }
  // Writes go where reads go if nothing else is said, and flushes where writes go.
  for (size_t i = given; i < kKinds; ++i) ways[i] = ways[i - 1];
  return std::unique_ptr<Target>(std::make_unique<Delay>(context, ways, given));
}

}  // namespace

extern const TargetType kDelayTarget;
const TargetType kDelayTarget{"delay", {1, 4, 0}, create};

}  // namespace dmfs
