// SPDX-License-Identifier: Apache-2.0
// disk: a dirty log that is kept on a device, in the kernel's format. After a crash only the regions
// that it does not call clean have to be copied.
#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "core/targets/mirror/log_header.h"
#include "core/targets/mirror/own_bio.h"
#include "core/targets/mirror/region_log.h"

namespace dmfs {
namespace {

constexpr uint64_t kRegionsPerSector = kSectorSize * 8;

// The bitset is counted in words of 32 bits.
uint64_t bitset_bytes(uint64_t regions) { return (regions + 31) / 32 * 4; }
Sectors log_sectors(uint64_t regions) {
  return {LogHeader::kBitsetSector + (bitset_bytes(regions) + kSectorSize - 1) / kSectorSize};
}

class DiskLog final : public RegionLog {
 public:
  DiskLog(TargetContext& context, BackingFile& device, const RegionLogArgs& args)
      : RegionLog(args),
        context_(context),
        device_(device),
        image_(static_cast<size_t>(log_sectors(args.region_count).bytes())) {}

  void resume(Done done) override {
    done_ = std::move(done);
    restart_search();
    // From the second time on the memory knows more than the device, whose writes may have failed.
    if (loaded_) return unusable_ ? finish(EINVAL) : write_all();
    io_.transfer(device_, Op::Read, {}, image_, [this](int error) { read(error); });
  }

  void flush(Done done) override {
    done_ = std::move(done);
    Sectors begin, end;
    {
      MutexLock lock(mutex_);
      begin = std::exchange(changed_begin_, {});
      end = std::exchange(changed_end_, {});
      writes_marks_ = std::exchange(has_marks_, false);
    }
    if (unusable_) return finish(EINVAL);
    if (begin == end) return finish(0);
    encode_bits(begin, end);
    io_.transfer(device_, Op::Write, Sectors{LogHeader::kBitsetSector} + begin, bits(begin, end),
                 [this, begin, end](int error) { bits_written(begin, end, error); });
  }

  void mark(RegionIndex region) override {
    MutexLock lock(mutex_);
    if (!clean_.clear(region)) return;
    changed(region);
    has_marks_ = true;
  }
  void clear(RegionIndex region) override {
    MutexLock lock(mutex_);
    if (clean_.set(region)) changed(region);
  }

  std::string table_words() const override {
    return fmt::format("disk {} {} {}", 1 + args_count(), quote_arg(device_.name()), args_text());
  }
  // The device, and A, D when reading or writing it has failed, or F for a flush.
  std::string status_words() const override {
    return fmt::format("3 disk {} {}", quote_arg(device_.name()),
                       health_.load(std::memory_order_relaxed));
  }

 private:
  std::span<std::byte> bits(Sectors begin, Sectors end) {
    size_t first = (LogHeader::kBitsetSector + begin.n) * kSectorSize;
    return std::span(image_).subspan(first, static_cast<size_t>((end - begin).bytes()));
  }
  Sectors bits_end() const { return Sectors{image_.size() / kSectorSize - LogHeader::kBitsetSector}; }
  std::span<std::byte, LogHeader::kBytes> header() {
    return std::span(image_).first<LogHeader::kBytes>();
  }

  // What stands behind the bitset stays as it was.
  void encode_bits(Sectors begin, Sectors end) {
    size_t first = begin.n * kSectorSize;
    size_t last = std::min<size_t>(end.n * kSectorSize, bitset_bytes(args_.region_count));
    clean_.to_bytes(first, bits(begin, end).first(last - first));
  }

  void changed(RegionIndex region) DM_REQUIRES(mutex_) {
    uint64_t sector = region / kRegionsPerSector;
    note({sector}, {sector + 1});
  }
  void note(Sectors begin, Sectors end) DM_REQUIRES(mutex_) {
    bool none = changed_begin_ == changed_end_;
    changed_begin_ = none ? begin : std::min(changed_begin_, begin);
    changed_end_ = none ? end : std::max(changed_end_, end);
  }

  void read(int error) {
    loaded_ = true;
    LogHeader found = LogHeader::decode(header());
    if (error) {
      // Nothing is known, so nothing is in sync.
      fail('D');
      found = {.magic = 0};
      std::fill(image_.begin(), image_.end(), std::byte{0});
    }
    bool new_log = args_.sync != SyncWish::IfNeeded || found.magic != LogHeader::kMagic;
    // Version 1 had the byte order of its machine, and is the same where that is little-endian.
    if (!new_log && found.version != 1 && found.version != LogHeader::kVersion) {
      unusable_ = true;
      fail('D');
      clean_.fill(false);
      sync_from_clean();
      return finish(EINVAL);
    }
    uint64_t known = new_log ? 0 : std::min(found.region_count, args_.region_count);
    clean_.from_bytes(bits({}, bits_end()));
    for (uint64_t i = known; i < args_.region_count; ++i) {
      args_.sync == SyncWish::Never ? clean_.set(i) : clean_.clear(i);
    }
    sync_from_clean();
    write_all();
  }

  // The header makes bits valid, so that they have to be there before it. It is left alone where it
  // is right already.
  void write_all() {
    {
      MutexLock lock(mutex_);
      changed_begin_ = changed_end_ = {};
      has_marks_ = false;
    }
    encode_bits({}, bits_end());
    io_.transfer(device_, Op::Write, Sectors{LogHeader::kBitsetSector}, bits({}, bits_end()),
                 [this](int error) {
                   if (error) return failed_to_write_all('D', error);
                   io_.flush(device_, [this](int e) {
                     if (e) return failed_to_write_all('F', e);
                     write_header();
                   });
                 });
  }
  void write_header() {
    LogHeader wanted{.region_count = args_.region_count};
    if (LogHeader::decode(header()) == wanted) return finish(0);
    wanted.encode(header());
    io_.transfer(device_, Op::Write, {}, std::span(image_).first<kSectorSize>(), [this](int error) {
      if (error) return failed_to_write_all('D', error);
      io_.flush(device_, [this](int e) {
        if (e) return failed_to_write_all('F', e);
        finish(0);
      });
    });
  }
  void failed_to_write_all(char how, int error) {
    LogHeader{.magic = 0}.encode(header());  // what the device has is not known: it is written again
    fail(how);
    finish(error);
  }

  void bits_written(Sectors begin, Sectors end, int error) {
    if (error) return failed_to_flush(begin, end, 'D', error);
    // That a region is clean may be lost, that it is not may not.
    if (!writes_marks_) return finish(0);
    io_.flush(device_, [this, begin, end](int e) {
      if (e) return failed_to_flush(begin, end, 'F', e);
      finish(0);
    });
  }
  void failed_to_flush(Sectors begin, Sectors end, char how, int error) {
    {
      MutexLock lock(mutex_);
      note(begin, end);
      has_marks_ |= writes_marks_;
    }
    fail(how);
    finish(error);
  }

  void fail(char how) {
    char alive = 'A';
    if (health_.compare_exchange_strong(alive, how)) context_.raise_event();
    if (how == 'F') health_.store('F', std::memory_order_relaxed);
  }
  void finish(int error) {
    Done done = std::exchange(done_, nullptr);
    done(error);
  }

  // constant after construction
  TargetContext& context_;
  BackingFile& device_;

  // own synchronisation
  std::atomic<char> health_{'A'};

  // of the one resume() or flush() that is under way
  std::vector<std::byte> image_;  // what the device holds, or what is being written
  OwnBio io_;
  Done done_;
  bool writes_marks_ = false;
  bool loaded_ = false;
  bool unusable_ = false;

  Mutex mutex_;  // leaf
  // Sectors of the bitset that have changed since they were written.
  Sectors changed_begin_ DM_GUARDED_BY(mutex_), changed_end_ DM_GUARDED_BY(mutex_);
  bool has_marks_ DM_GUARDED_BY(mutex_) = false;
};

// <device> <region size> [sync|nosync]
Result<std::unique_ptr<DirtyLog>> create(TargetContext& context,
                                         std::span<const std::string> args) {
  if (args.size() < 2 || args.size() > 3) {
    return Error{EINVAL, "dirty region log: wrong number of arguments to disk log"};
  }
  DM_TRY(RegionLogArgs parsed, parse_region_log_args(context, args.subspan(1)));
  auto device = context.open(args[0], {}, {});
  if (!device) return Error{EINVAL, fmt::format("dirty region log: {}", device.error().message)};
  Sectors needed = log_sectors(parsed.region_count);
  if ((*device)->size() < needed) {
    return Error{EINVAL, fmt::format("dirty region log: log device '{}' too small: need {} bytes",
                                     (*device)->name(), needed.bytes())};
  }
  return std::unique_ptr<DirtyLog>(std::make_unique<DiskLog>(context, **device, parsed));
}

}  // namespace

extern const DirtyLogType kDiskLog;
const DirtyLogType kDiskLog{"disk", create};

}  // namespace dmfs
