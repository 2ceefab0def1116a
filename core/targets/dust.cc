// SPDX-License-Identifier: Apache-2.0
// dust: a device with bad blocks. Reads of them fail when that is enabled; a write makes a block
// good again, after as many failures as it was given.
#include <algorithm>
#include <atomic>
#include <bit>
#include <map>

#include <fmt/format.h>

#include "core/base/mutex.h"
#include "core/targets/device_range.h"
#include "core/targets/open_device.h"

namespace dmfs {
namespace {

constexpr uint64_t kMinBlockSize = 512;  // bytes, as in the kernel
constexpr Sectors kMaxBlock{1 << 21};
constexpr size_t kMaxBadBlocks = 1 << 20;

Error refusal(std::string text, int code = EINVAL) {
  return Error{code, "dust: " + text};
}

class Dust final : public Target {
 public:
  Dust(TargetContext& context, DeviceRange range, Sectors block)
      : context_(context), range_(range), block_(block), shift_(std::countr_zero(block.n)) {}

  MapResult map(Bio& bio) override {
    range_.map(bio, context_.offset(bio));
    if (bio.op == Op::Flush || !fails_.load(std::memory_order_relaxed)) return MapResult::Remapped;
    // Blocks are counted from the start of the device, whatever the offset of the target.
    uint64_t first = bio.sector.n >> shift_;
    uint64_t last = (bio.sector.n + bio.count.n - 1) >> shift_;
    MutexLock lock(mutex_);
    bool good = bio.op == Op::Read ? none_bad(first, last) : make_good(first, last);
    return good ? MapResult::Remapped : MapResult::Kill;
  }

  std::string table_line() const override {
    return fmt::format("{} {} {}", quote_arg(range_.device.name()), range_.start.n, block_.bytes());
  }
  // <device> <fail_read_on_bad_block|bypass> <quiet|verbose>
  std::string status_line() const override {
    return fmt::format("{} {} {}", quote_arg(range_.device.name()),
                       fails_.load(std::memory_order_relaxed) ? "fail_read_on_bad_block" : "bypass",
                       quiet_.load(std::memory_order_relaxed) ? "quiet" : "verbose");
  }

  Result<std::string> message(std::span<const std::string> words) override;

  IoLimits limits() const override {
    return {.max_io_len = block_,
            .num_flush_bios = 1,
            .num_discard_bios = 1,
            .num_write_zeroes_bios = 1};
  }
  bool supports_discard() const override { return range_.device.supports_discard(); }
  Extent extent_at(Sectors offset, Sectors length) const override {
    return range_.extent_at(offset, length);
  }
  Sectors allocated(Sectors length) const override { return range_.allocated(length); }

 private:
  // One message; `block` and `count` are the numbers behind its name, 0 if there are none.
  using Command = Result<std::string> (Dust::*)(uint64_t block, uint8_t count);
  struct Message {
    std::string_view name;
    size_t min_words, max_words;
    Command run;
  };
  static const Message kMessages[];

  bool none_bad(uint64_t first, uint64_t last) const DM_REQUIRES(mutex_) {
    auto bad = bad_.lower_bound(first);
    return bad == bad_.end() || bad->first > last;
  }
  // What a write does to the blocks that it covers. A block that still has to fail a write fails
  // it as a whole, and the others stay bad.
  bool make_good(uint64_t first, uint64_t last) DM_REQUIRES(mutex_) {
    auto begin = bad_.lower_bound(first), end = bad_.upper_bound(last);
    bool good = true;
    for (auto bad = begin; bad != end; ++bad) {
      if (bad->second == 0) continue;
      --bad->second;
      good = false;
    }
    if (good) bad_.erase(begin, end);
    return good;
  }

  Result<std::string> enable(uint64_t, uint8_t) {
    fails_.store(true, std::memory_order_relaxed);
    return std::string();
  }
  Result<std::string> disable(uint64_t, uint8_t) {
    fails_.store(false, std::memory_order_relaxed);
    return std::string();
  }
  Result<std::string> quiet(uint64_t, uint8_t) {
    MutexLock lock(mutex_);  // two that toggle at once toggle twice
    quiet_.store(!quiet_.load(std::memory_order_relaxed), std::memory_order_relaxed);
    return std::string();
  }
  Result<std::string> add(uint64_t block, uint8_t count) {
    MutexLock lock(mutex_);
    if (bad_.contains(block)) {
      return refusal(fmt::format("dust_add_block: block {} already in badblocklist", block));
    }
    if (bad_.size() >= kMaxBadBlocks) {
      return refusal(fmt::format("dust_add_block: more than {} bad blocks", kMaxBadBlocks), ENOMEM);
    }
    bad_.emplace(block, count);
    return std::string();
  }
  Result<std::string> remove(uint64_t block, uint8_t) {
    MutexLock lock(mutex_);
    if (bad_.erase(block) == 0) {
      return refusal(fmt::format("dust_remove_block: block {} not found in badblocklist", block));
    }
    return std::string();
  }
  Result<std::string> query(uint64_t block, uint8_t) {
    MutexLock lock(mutex_);
    return fmt::format("dust_query_block: block {} {} in badblocklist", block,
                       bad_.contains(block) ? "found" : "not found");
  }
  Result<std::string> count(uint64_t, uint8_t) {
    MutexLock lock(mutex_);
    return fmt::format("countbadblocks: {} badblock(s) found", bad_.size());
  }
  Result<std::string> list(uint64_t, uint8_t) {
    MutexLock lock(mutex_);
    if (bad_.empty()) return std::string("No blocks in badblocklist");
    std::string out;
    for (const auto& [block, count] : bad_) out += fmt::format("{}\n", block);
    return out;
  }
  Result<std::string> clear(uint64_t, uint8_t) {
    MutexLock lock(mutex_);
    bool any = !bad_.empty();
    bad_.clear();
    return std::string(any ? "dust_clear_badblocks: badblocks cleared"
                           : "dust_clear_badblocks: no badblocks found");
  }

  // Constant after construction.
  TargetContext& context_;
  const DeviceRange range_;
  const Sectors block_;  // a power of two
  const int shift_;
  // Own synchronisation.
  std::atomic<bool> fails_{false};
  std::atomic<bool> quiet_{false};
  Mutex mutex_;  // leaf
  // The bad blocks, each with how many writes it still fails.
  std::map<uint64_t, uint8_t> bad_ DM_GUARDED_BY(mutex_);
};

const Dust::Message Dust::kMessages[] = {
    {"addbadblock", 2, 3, &Dust::add},    {"removebadblock", 2, 2, &Dust::remove},
    {"queryblock", 2, 2, &Dust::query},   {"countbadblocks", 1, 1, &Dust::count},
    {"listbadblocks", 1, 1, &Dust::list}, {"clearbadblocks", 1, 1, &Dust::clear},
    {"enable", 1, 1, &Dust::enable},      {"disable", 1, 1, &Dust::disable},
    {"quiet", 1, 1, &Dust::quiet},
};

// As in the kernel, numbers are looked at before the name is.
Result<std::string> Dust::message(std::span<const std::string> words) {
  if (words.size() > 3) {
    return refusal(fmt::format("invalid number of arguments '{}'", words.size()));
  }
  uint64_t block = 0, count = 0;
  if (words.size() > 1 && !parse_u64(words[1], block)) {
    return refusal(fmt::format("invalid block: '{}'", words[1]));
  }
  if (words.size() > 2) {
    if (!parse_u64(words[2], count)) {
      return refusal(fmt::format("invalid write fail count: '{}'", words[2]));
    }
    if (count > UINT8_MAX) return refusal("selected write fail count out of range");
  }
  // The block behind the last one is in range, as in the kernel.
  if (block > range_.device.size().n >> shift_) {
    return refusal("selected block value out of range");
  }
  for (const Message& message : kMessages) {
    if (!same_word(words[0], message.name)) continue;
    if (words.size() < message.min_words) {
      return refusal(fmt::format("{} requires an additional argument", words[0]));
    }
    if (words.size() > message.max_words) break;
    return (this->*message.run)(block, static_cast<uint8_t>(count));
  }
  return refusal(fmt::format("unrecognized message '{}' received", words[0]));
}

// <device> <offset> <block size>
Result<std::unique_ptr<Target>> create(TargetContext& context, std::span<const std::string> words) {
  constexpr std::string_view kCount = "Invalid argument count";
  ArgReader args("dust", words);
  if (args.size() < 3) return args.fail(kCount);
  if (args.size() > 3) return args.fail(kCount, words[3]);
  uint64_t bytes = 0;
  if (!parse_u64(words[2], bytes) || bytes == 0 || bytes > UINT32_MAX) {
    return args.fail("Invalid block size parameter", words[2]);
  }
  if (bytes < kMinBlockSize) return args.fail("Block size must be at least 512", words[2]);
  if (!std::has_single_bit(bytes)) return args.fail("Block size must be a power of 2", words[2]);
  Sectors block = sectors_of_bytes(bytes);
  if (block > std::min(context.length(), kMaxBlock)) {
    return args.fail("Block size is too large", words[2]);
  }
  DM_TRY(auto word, args.word(kCount));
  DM_TRY(Sectors start, args.sectors("Invalid device offset sector"));
  DM_TRY(BackingFile * device,
         open_device(context, args, "Device lookup failed", word, start, context.length()));
  return std::unique_ptr<Target>(
      std::make_unique<Dust>(context, DeviceRange{*device, start}, block));
}

}  // namespace

extern const TargetType kDustTarget;
const TargetType kDustTarget{"dust", {1, 0, 0}, create};

}  // namespace dmfs
