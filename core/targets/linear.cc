// SPDX-License-Identifier: Apache-2.0
// linear: maps a range of the device onto one range of another.
#include <fmt/format.h>

#include "core/targets/open_device.h"

namespace dmfs {
namespace {

class Linear final : public Target {
 public:
  Linear(TargetContext& context, BackingFile& device, Sectors start)
      : context_(context), device_(device), start_(start) {}

  MapResult map(Bio& bio) override {
    bio.remap(device_, bio.op == Op::Flush ? Sectors{0} : start_ + context_.offset(bio));
    return MapResult::Remapped;
  }

  std::string table_line() const override {
    return fmt::format("{} {}", quote_arg(device_.name()), start_.n);
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
  // Constant after construction.
  TargetContext& context_;
  BackingFile& device_;
  const Sectors start_;
};

// <device> <start sector>
Result<std::unique_ptr<Target>> create(TargetContext& context, std::span<const std::string> words) {
  constexpr std::string_view kCount = "Invalid argument count";
  ArgReader args("linear", words);
  if (args.size() < 2) return args.fail(kCount);
  if (args.size() > 2) return args.fail(kCount, words[2]);
  DM_TRY(auto word, args.word(kCount));
  DM_TRY(Sectors start, args.sectors("Invalid device sector"));
  DM_TRY(BackingFile * device,
         open_device(context, args, "Device lookup failed", word, start, context.length()));
  return std::unique_ptr<Target>(std::make_unique<Linear>(context, *device, start));
}

}  // namespace

extern const TargetType kLinearTarget;
const TargetType kLinearTarget{"linear", {1, 4, 0}, create};

}  // namespace dmfs
