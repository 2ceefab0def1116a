// SPDX-License-Identifier: Apache-2.0
// zero: reads as zeroes and swallows writes.
#include "core/dm/target.h"

namespace dmfs {
namespace {

class Zero final : public Target {
 public:
  MapResult map(Bio& bio) override {
    if (bio.op == Op::Read) zero_bio(bio.data, 0, bio.bytes());
    bio.complete(0);
    return MapResult::Submitted;
  }

  std::string table_line() const override { return {}; }
  // Nothing to flush. Discards are refused, as by Linux 6.1.
  IoLimits limits() const override { return {.num_write_zeroes_bios = 1}; }

  Extent extent_at(Sectors offset, Sectors length) const override {
    (void)offset;
    return {false, length};
  }
  Sectors allocated(Sectors length) const override {
    (void)length;
    return {0};
  }
};

// No parameters.
Result<std::unique_ptr<Target>> create(TargetContext& context, std::span<const std::string> words) {
  (void)context;
  ArgReader args("zero", words);
  if (args.left() > 0) return args.fail("No arguments required", args.peek());
  return std::unique_ptr<Target>(std::make_unique<Zero>());
}

}  // namespace

extern const TargetType kZeroTarget;
const TargetType kZeroTarget{"zero", {1, 1, 0}, create};

}  // namespace dmfs
