// SPDX-License-Identifier: Apache-2.0
// From a word of a table line to what it names: a file, a block device, or a mapped device.
#pragma once

#include <functional>
#include <string>

#include "core/dm/device_manager.h"
#include "core/dm/table.h"

namespace dmfs {

class DeviceResolver final : public DeviceOpener {
 public:
  struct Options {
    DeviceManager& manager;
    IoService& io;
    uint32_t self;                                          // whose table it is
    std::string cwd;                                        // for relative paths; may be empty
    std::function<void(uint32_t minor)> before_volume = {}; // called before a volume is opened
  };
  explicit DeviceResolver(Options options) : options_(std::move(options)) {}

  // In this order: MAJOR:MINOR (253:N is the mapped device with minor N, others a block device);
  // the name of a mapped device; a path, which may lead to a mapped device in our own mount.
  Result<std::unique_ptr<BackingFile>> open(const std::string& word, bool read_only) override;

  // What `word` names, by the same rules; a relative path is nothing. Any thread.
  static Result<DeviceIdentity> identify(const DeviceManager& manager, const std::string& word);

 private:
  Result<std::unique_ptr<BackingFile>> open_volume(uint32_t minor, const std::string& word);
  Result<std::unique_ptr<BackingFile>> open_path(const std::string& path, bool read_only);

  const Options options_;
};

}  // namespace dmfs
