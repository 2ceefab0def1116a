// SPDX-License-Identifier: Apache-2.0
// throttle: passes I/O on no faster than it is told: so many requests, so many bytes a second,
// reads and writes apart. What comes too fast waits its turn.
#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "core/base/alarm.h"
#include "core/base/mutex.h"
#include "core/targets/open_device.h"
#include "core/targets/token_bucket.h"

namespace dmfs {
namespace {

constexpr uint64_t kDefaultBurstMs = 100;
constexpr uint64_t kMaxBurstMs = 3600'000;
constexpr uint64_t kMaxRate = uint64_t{1} << 53;

enum Setting : size_t { kReadIops, kWriteIops, kReadBps, kWriteBps, kBurstMs, kSettings };
constexpr std::array<std::string_view, kSettings> kNames{"read_iops", "write_iops", "read_bps",
                                                         "write_bps", "burst_ms"};
// Limits are 0 where there is none.
using Settings = std::array<uint64_t, kSettings>;
constexpr Settings kDefaults{0, 0, 0, 0, kDefaultBurstMs};

enum Direction : size_t { kReads, kWrites, kDirections };

class Throttle final : public Target {
 public:
  Throttle(TargetContext& context, BackingFile& device, Sectors start, const Settings& settings)
      : context_(context),
        device_(device),
        start_(start),
        settings_(settings),
        alarm_(context.clock(), [this] { advance(); }) {
    MutexLock lock(mutex_);
    apply(settings_);
  }

  MapResult map(Bio& bio) override {
    bio.remap(device_, bio.op == Op::Flush ? Sectors{0} : start_ + context_.offset(bio));
    if (!op_has_data(bio.op)) return MapResult::Remapped;
    int cancelled;
    {
      MutexLock lock(mutex_);
      Queue& queue = queues_[bio.op == Op::Read ? kReads : kWrites];
      if (passes_ || !queue.limited()) return MapResult::Remapped;
      Clock::Time now = context_.clock().now();
      if (queue.waiting.empty() && queue.ready() <= now) {
        queue.take(bio, now);
        return MapResult::Remapped;
      }
      cancelled = bio.cancelled();
      if (!cancelled) {
        stamp_held(bio);
        queue.waiting.push_back(bio);
        ++queue.delayed;
        alarm_.set(queue.ready());
        return MapResult::Submitted;
      }
    }
    bio.complete(cancelled);
    return MapResult::Submitted;
  }

  size_t cancel(const BioCancel& cancel) override {
    std::array<BioList, kDirections> taken;
    {
      MutexLock lock(mutex_);
      for (size_t i = 0; i < kDirections; ++i) taken[i] = queues_[i].waiting.take(cancel);
    }
    return taken[kReads].complete_all(cancel.error) + taken[kWrites].complete_all(cancel.error);
  }

  void list_held(HeldList& list) const override {
    MutexLock lock(mutex_);
    for (const Queue& queue : queues_) {
      for (const Bio* bio = queue.waiting.front(); bio; bio = bio->next) {
        list.add("throttle", *bio, bio->sector - start_ + context_.begin());
      }
    }
  }
  std::string freed_by() const override { return "goes by itself, at message 'set', or at a suspend"; }

  // What waits goes at once, and until the resume there is no limit.
  void presuspend() override {
    std::array<BioList, kDirections> sent;
    {
      MutexLock lock(mutex_);
      passes_ = true;
      for (size_t i = 0; i < kDirections; ++i) std::swap(sent[i], queues_[i].waiting);
    }
    for (BioList& bios : sent) send(bios);
  }
  void presuspend_undo() override { resume(); }
  void resume() override {
    MutexLock lock(mutex_);
    passes_ = false;
  }

  // set [<setting> <value>]+
  Result<std::string> message(std::span<const std::string> words) override;

  std::string table_line() const override;
  // How many reads and writes wait, and how many had to since the table was loaded.
  std::string status_line() const override {
    MutexLock lock(mutex_);
    return fmt::format("{} {} {} {}", queues_[kReads].waiting.size(),
                       queues_[kWrites].waiting.size(), queues_[kReads].delayed,
                       queues_[kWrites].delayed);
  }

  IoLimits limits() const override {
    return {.num_flush_bios = 1, .num_discard_bios = 1, .num_write_zeroes_bios = 1};
  }
  bool supports_discard() const override { return device_.supports_discard(); }

  Extent extent_at(Sectors offset, Sectors length) const override {
    return device_.extent_at(start_ + offset, length);
  }
  Sectors allocated(Sectors length) const override { return device_.allocated(start_, length); }

 private:
  struct Queue {
    TokenBucket requests, bytes;
    BioList waiting;  // remapped already
    uint64_t delayed = 0;

    bool limited() const { return requests.rate() || bytes.rate(); }
    Clock::Time ready() const { return std::max(requests.ready(), bytes.ready()); }
    void take(const Bio& bio, Clock::Time now) {
      requests.take(1, now);
      bytes.take(bio.bytes(), now);
    }
  };

  void apply(const Settings& settings) DM_REQUIRES(mutex_) {
    Clock::Time now = context_.clock().now();
    auto burst = std::chrono::milliseconds(settings[kBurstMs]);
    for (size_t i = 0; i < kDirections; ++i) {
      queues_[i].requests.set(settings[kReadIops + i], burst, now);
      queues_[i].bytes.set(settings[kReadBps + i], burst, now);
    }
    settings_ = settings;
  }

  // Sends what may go by now.
  void advance() {
    std::array<BioList, kDirections> sent;
    {
      MutexLock lock(mutex_);
      Clock::Time now = context_.clock().now();
      for (size_t i = 0; i < kDirections; ++i) {
        Queue& queue = queues_[i];
        while (!queue.waiting.empty() && queue.ready() <= now) {
          Bio& bio = *queue.waiting.pop_front();
          queue.take(bio, now);
          sent[i].push_back(bio);
        }
        if (!queue.waiting.empty()) alarm_.set(queue.ready());
      }
    }
    for (BioList& bios : sent) send(bios);
  }
  static void send(BioList& bios) {
    while (Bio* bio = bios.pop_front()) bio->dev->submit(*bio);
  }

  // Constant after construction.
  TargetContext& context_;
  BackingFile& device_;
  const Sectors start_;

  // Guarded by mutex_, under which only the alarm and the clock are called.
  mutable Mutex mutex_;
  Settings settings_ DM_GUARDED_BY(mutex_);
  std::array<Queue, kDirections> queues_ DM_GUARDED_BY(mutex_);
  bool passes_ DM_GUARDED_BY(mutex_) = false;

  // Own synchronisation.
  Alarm alarm_;  // last: its work uses all that stands above
};

// [<setting> <value>]+, on top of `settings`.
Result<Settings> read_settings(ArgReader& args, Settings settings) {
  while (args.left() > 0) {
    DM_TRY(auto name, args.word("Missing setting"));
    auto known = std::find(kNames.begin(), kNames.end(), name);
    if (known == kNames.end()) return args.fail("Unrecognised setting", name);
    auto which = static_cast<size_t>(known - kNames.begin());
    DM_TRY(settings[which], args.number(fmt::format("Invalid {}", name), 0,
                                        which == kBurstMs ? kMaxBurstMs : kMaxRate));
  }
  return settings;
}

Result<std::string> Throttle::message(std::span<const std::string> words) {
  ArgReader args("throttle", words);
  DM_TRY(auto word, args.word("No message"));
  if (word != "set") return args.fail("Unrecognised message received", word);
  if (args.left() == 0) return args.fail("Missing setting");
  {
    MutexLock lock(mutex_);
    DM_TRY(Settings settings, read_settings(args, settings_));
    apply(settings);
  }
  advance();
  return std::string();
}

std::string Throttle::table_line() const {
  MutexLock lock(mutex_);
  std::string text;
  unsigned count = 0;
  for (size_t i = 0; i < kSettings; ++i) {
    if (settings_[i] == kDefaults[i]) continue;
    text += fmt::format(" {} {}", kNames[i], settings_[i]);
    count += 2;
  }
  return fmt::format("{} {} {}{}", quote_arg(device_.name()), start_.n, count, text);
}

// <device> <start sector> [<#args> [<setting> <value>]*]
Result<std::unique_ptr<Target>> create(TargetContext& context, std::span<const std::string> words) {
  constexpr std::string_view kCount = "Invalid argument count";
  ArgReader args("throttle", words);
  if (args.size() < 2) return args.fail(kCount);
  DM_TRY(auto word, args.word(kCount));
  DM_TRY(Sectors start, args.sectors("Invalid device sector"));
  uint64_t count = 0;
  if (args.left() > 0) {
    DM_TRY(count, args.number("Invalid number of settings", 0, 2 * kSettings));
  }
  if (count != args.left() || count % 2 != 0) return args.fail("Invalid number of settings", words[2]);
  DM_TRY(Settings settings, read_settings(args, kDefaults));
  DM_TRY(BackingFile * device,
         open_device(context, args, "Device lookup failed", word, start, context.length()));
  return std::unique_ptr<Target>(std::make_unique<Throttle>(context, *device, start, settings));
}

}  // namespace

extern const TargetType kThrottleTarget;
const TargetType kThrottleTarget{"throttle", {1, 0, 0}, create};

}  // namespace dmfs
