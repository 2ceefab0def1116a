// SPDX-License-Identifier: Apache-2.0
// Opens what a path names as a backing file, in the way the daemon was told to.
#pragma once

#include <memory>
#include <string>

#include "core/base/result.h"
#include "core/io/backing_file.h"
#include "core/io/io_service.h"

namespace dmfs {

// As FileBacking::open(): `path_fd` is an O_PATH descriptor of what `path` names, and stays the
// caller's. May block.
Result<std::unique_ptr<BackingFile>> open_backing(IoService& service, int path_fd,
                                                  const std::string& path, bool read_only);

}  // namespace dmfs
