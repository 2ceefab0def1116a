// SPDX-License-Identifier: Apache-2.0
// striped: deals the device out in chunks over several others, round robin (RAID 0).
#include <algorithm>
#include <atomic>
#include <bit>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/targets/open_device.h"

namespace dmfs {
namespace {

// A flush or discard is one clone a stripe, and IoLimits counts those in 16 bits.
constexpr uint64_t kMaxStripes = UINT16_MAX;
constexpr uint64_t kMaxChunk = UINT32_MAX;  // sectors, as in the kernel
// A stripe raises an event for each error until it has had this many.
constexpr uint32_t kMaxCountedErrors = 15;

// Divides by a number that is fixed at creation; with a shift where it is a power of two.
class Divisor {
 public:
  explicit Divisor(uint64_t by)
      : by_(by), shift_(std::has_single_bit(by) ? std::countr_zero(by) : -1) {}
  // Quotient and remainder.
  std::pair<uint64_t, uint64_t> divide(uint64_t n) const {
    if (shift_ >= 0) return {n >> shift_, n & (by_ - 1)};
    uint64_t quotient = n / by_;
    return {quotient, n - quotient * by_};
  }
  uint64_t value() const { return by_; }

 private:
  uint64_t by_;
  int shift_;
};

struct Stripe {
  BackingFile* device;
  Sectors start;
};

class Striped final : public Target {
 public:
  Striped(TargetContext& context, std::vector<Stripe> stripes, uint64_t chunk)
      : context_(context),
        stripes_(std::move(stripes)),
        count_(stripes_.size()),
        chunk_(chunk),
        errors_(stripes_.size()) {}

  MapResult map(Bio& bio) override {
    switch (bio.op) {
      case Op::Read:
      case Op::Write: {
        Place place = locate(context_.offset(bio));
        bio.remap(*place.stripe->device, place.stripe->start + place.sector);
        return MapResult::Remapped;
      }
      case Op::Flush:
        assert(bio.slot < stripes_.size());
        bio.remap(*stripes_[bio.slot].device, Sectors{0});
        return MapResult::Remapped;
      case Op::Discard:
      case Op::WriteZeroes:
        return map_share(bio);
    }
    return MapResult::Kill;
  }

  EndIo end_io(Bio& bio, int& error) override {
    if (error == 0 || error == EOPNOTSUPP) return EndIo::Done;
    // As in the kernel the error counts for each stripe that lies on the device.
    bool raise = false;
    for (size_t i = 0; i < stripes_.size(); ++i) {
      if (stripes_[i].device != bio.dev) continue;
      if (errors_[i].load(std::memory_order_relaxed) >= kMaxCountedErrors) continue;
      raise |= errors_[i].fetch_add(1, std::memory_order_relaxed) + 1 < kMaxCountedErrors;
    }
    if (raise) context_.raise_event();
    return EndIo::Done;
  }

  std::string table_line() const override {
    std::string line = fmt::format("{} {}", stripes_.size(), chunk_.value());
    for (const Stripe& stripe : stripes_) {
      line += fmt::format(" {} {}", quote_arg(stripe.device->name()), stripe.start.n);
    }
    return line;
  }
  // <#stripes> <device>... 1 <a letter for each: A, or D when it has had errors>
  std::string status_line() const override {
    std::string line = fmt::format("{}", stripes_.size());
    for (const Stripe& stripe : stripes_) line += ' ' + quote_arg(stripe.device->name());
    line += " 1 ";
    for (const auto& errors : errors_) line += errors.load(std::memory_order_relaxed) ? 'D' : 'A';
    return line;
  }

  IoLimits limits() const override {
    auto clones = static_cast<uint16_t>(stripes_.size());
    return {.max_io_len = {chunk_.value()},
            .num_flush_bios = clones,
            .num_discard_bios = clones,
            .num_write_zeroes_bios = clones};
  }
  bool supports_discard() const override {
    return std::all_of(stripes_.begin(), stripes_.end(),
                       [](const Stripe& s) { return s.device->supports_discard(); });
  }

  Extent extent_at(Sectors offset, Sectors length) const override {
    Place place = locate(offset);
    uint64_t to_chunk_end = chunk_.value() - chunk_.divide(offset.n).second;
    return place.stripe->device->extent_at(place.stripe->start + place.sector,
                                           {std::min(length.n, to_chunk_end)});
  }
  Sectors allocated(Sectors length) const override {
    Sectors sum;
    for (const Stripe& stripe : stripes_) {
      sum += stripe.device->allocated(stripe.start, {length.n / stripes_.size()});
    }
    return sum;
  }

 private:
  struct Place {
    const Stripe* stripe;
    Sectors sector;  // from the stripe's start
  };

  Place locate(Sectors offset) const {
    auto [chunk, within] = chunk_.divide(offset.n);
    auto [row, stripe] = count_.divide(chunk);
    return {&stripes_[stripe], {row * chunk_.value() + within}};
  }

  // How many of the target's first `offset` sectors lie on stripe `index`.
  Sectors share_before(Sectors offset, uint64_t index) const {
    auto [chunk, within] = chunk_.divide(offset.n);
    auto [row, stripe] = count_.divide(chunk);
    uint64_t in_row = index < stripe ? chunk_.value() : index == stripe ? within : 0;
    return {row * chunk_.value() + in_row};
  }

  // Narrows the whole range down to the part on the slot's stripe, which has no gaps there.
  MapResult map_share(Bio& bio) {
    assert(bio.slot < stripes_.size());
    Sectors offset = context_.offset(bio);
    Sectors begin = share_before(offset, bio.slot);
    Sectors end = share_before(offset + bio.count, bio.slot);
    if (begin == end) {
      bio.complete(0);
      return MapResult::Submitted;
    }
    bio.count = end - begin;
    bio.remap(*stripes_[bio.slot].device, stripes_[bio.slot].start + begin);
    return MapResult::Remapped;
  }

  // Constant after construction.
  TargetContext& context_;
  const std::vector<Stripe> stripes_;
  const Divisor count_;
  const Divisor chunk_;
  // Own synchronisation.
  std::vector<std::atomic<uint32_t>> errors_;
};

// <number of stripes> <chunk size> [<device> <start sector>]+
Result<std::unique_ptr<Target>> create(TargetContext& context, std::span<const std::string> words) {
  constexpr std::string_view kFew = "Not enough arguments";
  constexpr std::string_view kDestinations = "Not enough destinations specified";
  constexpr std::string_view kDestination = "Couldn't parse stripe destination";
  ArgReader args("striped", words);
  if (args.size() < 2) return args.fail(kFew);
  DM_TRY(uint64_t count, args.number("Invalid stripe count", 1, kMaxStripes));
  DM_TRY(uint64_t chunk, args.number("Invalid chunk_size", 1, kMaxChunk));
  if (context.length().n % count != 0) {
    return args.fail("Target length not divisible by number of stripes", words[0]);
  }
  Sectors width{context.length().n / count};
  if (width.n % chunk != 0) {
    return args.fail("Target length not divisible by chunk size", words[1]);
  }
  if (args.left() < 2 * count) return args.fail(kDestinations);
  // The kernel uses one text for too few and too many; the first word too many makes it clear.
  if (args.left() > 2 * count) return args.fail(kDestinations, words[2 + 2 * count]);

  std::vector<Stripe> stripes;
  stripes.reserve(count);
  while (args.left() > 0) {
    DM_TRY(auto word, args.word(kDestination));
    DM_TRY(Sectors start, args.sectors(kDestination));
    DM_TRY(BackingFile * device, open_device(context, args, kDestination, word, start, width));
    stripes.push_back({device, start});
  }
  return std::unique_ptr<Target>(std::make_unique<Striped>(context, std::move(stripes), chunk));
}

}  // namespace

extern const TargetType kStripedTarget;
const TargetType kStripedTarget{"striped", {1, 6, 0}, create};

}  // namespace dmfs
