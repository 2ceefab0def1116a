// SPDX-License-Identifier: Apache-2.0
// hang: passes I/O through to a device, save that on a word it holds what touches a range of
// sectors, for as long as one likes. A disk that does not answer, without the disk.
#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "core/base/errno_names.h"
#include "core/base/mutex.h"
#include "core/targets/open_device.h"

namespace dmfs {
namespace {

constexpr size_t kMaxRanges = 1024;

struct Range {
  Sectors begin, end;  // within the target
  bool touches(Sectors at, Sectors count) const { return at < end && begin < at + count; }
};

class Hang final : public Target {
 public:
  Hang(TargetContext& context, BackingFile& device, Sectors start)
      : context_(context), device_(device), start_(start), held_(context.held_budget()) {}

  MapResult map(Bio& bio) override {
    Sectors at = bio.op == Op::Flush ? Sectors{0} : context_.offset(bio);
    bio.remap(device_, bio.op == Op::Flush ? Sectors{0} : start_ + at);
    if (bio.op == Op::Flush || !armed_.load(std::memory_order_relaxed)) return MapResult::Remapped;
    int refused;
    bool tell = false;
    {
      MutexLock lock(mutex_);
      if (std::none_of(ranges_.begin(), ranges_.end(),
                       [&](const Range& range) { return range.touches(at, bio.count); })) {
        return MapResult::Remapped;
      }
      // presuspend() may have been here already.
      if (!bio.cancelled() && context_.noflush_suspending()) return MapResult::Requeue;
      refused = held_.keep(bio, tell);
    }
    if (tell) context_.raise_event();
    if (refused) bio.complete(refused);
    return MapResult::Submitted;
  }

  size_t cancel(const BioCancel& cancel) override {
    BioList taken;
    {
      MutexLock lock(mutex_);
      taken = held_.take(cancel);
    }
    return taken.complete_all(cancel.error);
  }

  void list_held(HeldList& list) const override {
    MutexLock lock(mutex_);
    for (const Bio* bio = held_.front(); bio; bio = bio->next) {
      list.add("hang", *bio, bio->sector - start_ + context_.begin());
    }
  }
  std::string freed_by() const override { return "message 'release' or 'fail'"; }

  // A suspend that flushes waits until somebody releases what is held, or fails it.
  void presuspend() override {
    if (!context_.noflush_suspending()) return;
    (void)take_held().complete_all(kRequeue);
  }

  // hold <start> <count>
  // release
  // fail [<errno>]
  Result<std::string> message(std::span<const std::string> words) override {
    ArgReader args("hang", words);
    DM_TRY(auto word, args.word("No message"));
    if (word == "hold") return hold(args);
    if (word == "release") {
      if (args.left() > 0) return args.fail("Too many arguments", words[1]);
      BioList held = disarm();
      while (Bio* bio = held.pop_front()) bio->dev->submit(*bio);
      return std::string();
    }
    if (word == "fail") {
      int error = EIO;
      if (args.left() > 1) return args.fail("Too many arguments", words[2]);
      if (args.left() == 1 && (error = parse_errno(words[1])) == 0) {
        return args.fail("Invalid errno", words[1]);
      }
      (void)disarm().complete_all(error);
      return std::string();
    }
    return args.fail("Unrecognised message received", word);
  }

  std::string table_line() const override {
    return fmt::format("{} {}", quote_arg(device_.name()), start_.n);
  }
  // <how many are held> <how many ranges are>
  std::string status_line() const override {
    MutexLock lock(mutex_);
    return fmt::format("{} {}", held_.size(), ranges_.size());
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
  Result<std::string> hold(ArgReader& args) {
    DM_TRY(Sectors start, args.sectors("Invalid start sector"));
    DM_TRY(uint64_t count, args.number("Invalid sector count", 1));
    if (args.left() > 0) return args.fail("Too many arguments", args.peek());
    if (start >= context_.length() || count > (context_.length() - start).n) {
      return args.fail(fmt::format("Range outside the target of {} sectors", context_.length().n));
    }
    MutexLock lock(mutex_);
    if (ranges_.size() == kMaxRanges) return args.fail("Too many ranges", {}, ENOSPC);
    ranges_.push_back({start, start + Sectors{count}});
    armed_.store(true, std::memory_order_relaxed);
    return std::string();
  }

  BioList take_held() {
    MutexLock lock(mutex_);
    return held_.take_all();
  }
  BioList disarm() {
    MutexLock lock(mutex_);
    ranges_.clear();
    armed_.store(false, std::memory_order_relaxed);
    return held_.take_all();
  }

  // Constant after construction.
  TargetContext& context_;
  BackingFile& device_;
  const Sectors start_;

  // Own synchronisation.
  std::atomic<bool> armed_{false};  // whether there are ranges; spares most I/O the lock

  // Guarded by mutex_, under which only noflush_suspending() is asked.
  mutable Mutex mutex_;
  std::vector<Range> ranges_ DM_GUARDED_BY(mutex_);
  KeptBios held_ DM_GUARDED_BY(mutex_);  // remapped already
};

// <device> <start sector>
Result<std::unique_ptr<Target>> create(TargetContext& context, std::span<const std::string> words) {
  constexpr std::string_view kCount = "Invalid argument count";
  ArgReader args("hang", words);
  if (args.size() < 2) return args.fail(kCount);
  if (args.size() > 2) return args.fail(kCount, words[2]);
  DM_TRY(auto word, args.word(kCount));
  DM_TRY(Sectors start, args.sectors("Invalid device sector"));
  DM_TRY(BackingFile * device,
         open_device(context, args, "Device lookup failed", word, start, context.length()));
  return std::unique_ptr<Target>(std::make_unique<Hang>(context, *device, start));
}

}  // namespace

extern const TargetType kHangTarget;
const TargetType kHangTarget{"hang", {1, 0, 0}, create};

}  // namespace dmfs
