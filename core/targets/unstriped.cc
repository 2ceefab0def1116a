// SPDX-License-Identifier: Apache-2.0
// unstriped: shows one stripe of a device whose chunks are dealt out in turn; undoes striped.
#include <algorithm>

#include <fmt/format.h>

#include "core/targets/open_device.h"

namespace dmfs {
namespace {

struct Layout {
  uint64_t stripes;  // 1 .. 2^32-1
  uint64_t chunk;    // sectors, 1 .. 2^32-1
  uint64_t stripe;   // the one that is shown
  Sectors start;     // of the striped data on the device
};

class Unstriped final : public Target {
 public:
  Unstriped(TargetContext& context, BackingFile& device, const Layout& layout)
      : context_(context), device_(device), layout_(layout), device_size_(device.size()) {}

  MapResult map(Bio& bio) override {
    Sectors at = bio.op == Op::Flush ? Sectors{0} : locate(context_.offset(bio));
    // A table may reach past the end of the device (see create); a write there must not make a
    // file longer.
    if (at + bio.count > device_size_) return MapResult::Kill;
    bio.remap(device_, at);
    return MapResult::Remapped;
  }

  std::string table_line() const override {
    return fmt::format("{} {} {} {} {}", layout_.stripes, layout_.chunk, layout_.stripe,
                       quote_arg(device_.name()), layout_.start.n);
  }

  // The kernel's sends no flush down; a volume on top must not lose what it was told is safe. A
  // range of several chunks is not one range below: no discard and no write-zeroes, as there.
  IoLimits limits() const override { return {.max_io_len = {layout_.chunk}, .num_flush_bios = 1}; }

  Extent extent_at(Sectors offset, Sectors length) const override {
    Sectors run{std::min(length.n, layout_.chunk - offset.n % layout_.chunk)};
    Sectors at = locate(offset);
    if (at + run > device_size_) return {true, run};
    return device_.extent_at(at, run);
  }
  // An estimate: the stripe's part of what all stripes have.
  Sectors allocated(Sectors length) const override {
    Sectors all = device_.allocated(layout_.start, {length.n * layout_.stripes});
    return {all.n / layout_.stripes};
  }

 private:
  // No overflow: create() has looked at the end.
  Sectors locate(Sectors offset) const {
    uint64_t row = offset.n / layout_.chunk;
    uint64_t skipped = row * (layout_.stripes - 1) * layout_.chunk + layout_.stripe * layout_.chunk;
    return layout_.start + offset + Sectors{skipped};
  }

  // Constant after construction.
  TargetContext& context_;
  BackingFile& device_;
  const Layout layout_;
  const Sectors device_size_;
};

// Whether every sector of the layout, for a target of `length`, could be on some device.
bool addressable(const Layout& layout, Sectors length) {
  uint64_t end = 0;
  return !__builtin_mul_overflow(length.n, layout.stripes, &end) &&
         !__builtin_add_overflow(end, layout.stripe * layout.chunk, &end) &&
         !__builtin_add_overflow(end, layout.start.n, &end) && end <= kMaxDeviceSectors.n;
}

// <number of stripes> <chunk size> <stripe #> <device> <start sector>
Result<std::unique_ptr<Target>> create(TargetContext& context, std::span<const std::string> words) {
  constexpr std::string_view kCount = "Invalid number of arguments";
  ArgReader args("unstriped", words);
  if (args.size() < 5) return args.fail(kCount);
  if (args.size() > 5) return args.fail(kCount, words[5]);
  Layout layout{};
  DM_TRY(layout.stripes, args.number("Invalid stripe count", 1, UINT32_MAX));
  DM_TRY(layout.chunk, args.number("Invalid chunk_size", 1, UINT32_MAX));
  DM_TRY(layout.stripe, args.number("Invalid stripe number", 0, UINT32_MAX));
  // One too generous, and not asked of a single stripe: the kernel's bounds.
  if (layout.stripe > layout.stripes && layout.stripes > 1) {
    return args.fail("Please provide stripe between [0, # of stripes]", words[2]);
  }
  DM_TRY(auto word, args.word(kCount));
  DM_TRY(layout.start, args.sectors("Invalid striped device offset"));
  if (context.length().n % layout.chunk != 0) {
    return args.fail("Target length not divisible by chunk size", words[1]);
  }
  if (!addressable(layout, context.length())) {
    return args.fail("Striped device would be too large", words[4]);
  }
  // Only this much of the device is asked for, as in the kernel: it may be too short for all of
  // the stripe, and what lies past its end fails with EIO.
  DM_TRY(BackingFile * device, open_device(context, args, "Couldn't get striped device", word,
                                           layout.start, context.length()));
  return std::unique_ptr<Target>(std::make_unique<Unstriped>(context, *device, layout));
}

}  // namespace

extern const TargetType kUnstripedTarget;
const TargetType kUnstripedTarget{"unstriped", {1, 1, 0}, create};

}  // namespace dmfs
