// SPDX-License-Identifier: Apache-2.0
// error: fails every read and write with EIO.
#include "core/targets/open_device.h"

namespace dmfs {
namespace {

class ErrorTarget final : public Target {
 public:
  MapResult map(Bio& bio) override {
    (void)bio;
    return MapResult::Kill;
  }

  TableKind table_kind() const override { return TableKind::Any; }

  // A device that was named is held open, and not printed, as in the kernel.
  std::string table_line() const override { return {}; }
  // Takes no flush, so fsync succeeds. Discards are EOPNOTSUPP, as in Linux 6.1.
  IoLimits limits() const override { return {.num_write_zeroes_bios = 1}; }

  Sectors allocated(Sectors length) const override {
    (void)length;
    return {0};
  }
};

// [<device> <start sector>], as since Linux 6.7; any other number of words is ignored.
Result<std::unique_ptr<Target>> create(TargetContext& context, std::span<const std::string> words) {
  if (words.size() == 2) {
    ArgReader args("error", words);
    DM_TRY(auto word, args.word("Invalid argument count"));
    DM_TRY(Sectors start, args.sectors("Invalid device sector"));
    DM_TRY(BackingFile * device,
           open_device(context, args, "Device lookup failed", word, start, context.length()));
    (void)device;
  }
  return std::unique_ptr<Target>(std::make_unique<ErrorTarget>());
}

}  // namespace

extern const TargetType kErrorTarget;
const TargetType kErrorTarget{"error", {1, 5, 0}, create, kTargetWildcard};

}  // namespace dmfs
