// SPDX-License-Identifier: Apache-2.0
// A mapped device below another: bios go from one to the other in process, never through FUSE.
#pragma once

#include <memory>
#include <string>

#include "core/dm/device_manager.h"
#include "core/dm/mapped_device.h"
#include "core/io/backing_file.h"

namespace dmfs {

class VolumeBacking final : public BackingFile {
 public:
  // Counts as a user of the device for as long as it lives. ENXIO when there is no such device.
  static Result<std::unique_ptr<BackingFile>> open(DeviceManager& manager, uint32_t minor);
  ~VolumeBacking() override;

  void submit(Bio& bio) override {
    if (op_modifies(bio.op) && manager_.change_observer()) return submit_watched(bio);
    device_->submit(bio);
  }
  size_t cancel(const BioCancel& cancel) override { return device_->cancel(cancel); }
  std::string name() const override { return manager_.name_of(device_->minor()); }
  Sectors size() const override { return device_->size(); }
  bool read_only() const override { return device_->read_only(); }
  Extent extent_at(Sectors start, Sectors length) const override;
  std::string fault() const override;
  // No file system has device number ~0.
  static FileId id_of(uint32_t minor) { return {~uint64_t{0}, minor}; }
  FileId id() const override { return id_of(device_->minor()); }
  int64_t volume_minor() const override { return device_->minor(); }

 private:
  // Tells the observer before the bio completes.
  void submit_watched(Bio& bio);

  VolumeBacking(DeviceManager& manager, std::shared_ptr<MappedDevice> device)
      : manager_(manager), device_(std::move(device)) {}

  DeviceManager& manager_;                       // outlives all tables
  const std::shared_ptr<MappedDevice> device_;   // shared with the manager and other users
};

}  // namespace dmfs
