// SPDX-License-Identifier: Apache-2.0
// error: fails every read and write with EIO.
#include "core/dm/target.h"

namespace dmfs {
namespace {

class ErrorTarget final : public Target {
 public:
  MapResult map(Bio& bio) override {
    (void)bio;
    return MapResult::Kill;
  }

  std::string table_line() const override { return {}; }
  // Takes no flush, so fsync succeeds. Discards are EOPNOTSUPP, as in the kernel.
  IoLimits limits() const override { return {.num_write_zeroes_bios = 1}; }

  Sectors allocated(Sectors length) const override {
    (void)length;
    return {0};
  }
};

// Any words; none is kept.
Result<std::unique_ptr<Target>> create(TargetContext& context, std::span<const std::string> words) {
  (void)context;
  (void)words;
  return std::unique_ptr<Target>(std::make_unique<ErrorTarget>());
}

}  // namespace

extern const TargetType kErrorTarget;
const TargetType kErrorTarget{"error", {1, 5, 0}, create};

}  // namespace dmfs
