// SPDX-License-Identifier: Apache-2.0
#include "core/io/open_backing.h"

#include "core/io/aligned_backing.h"
#include "core/io/file_backing.h"

namespace dmfs {

Result<std::unique_ptr<BackingFile>> open_backing(IoService& service, int path_fd,
                                                  const std::string& path, bool read_only) {
  DM_TRY(std::unique_ptr<FileBacking> buffered,
         FileBacking::open(service, path_fd, path, {.read_only = read_only, .direct = false}));
  if (!service.direct()) return std::unique_ptr<BackingFile>(std::move(buffered));
  DM_TRY(std::unique_ptr<FileBacking> direct,
         FileBacking::open(service, path_fd, path, {.read_only = read_only, .direct = true}));
  uint32_t alignment = direct->direct_alignment();
  return std::unique_ptr<BackingFile>(std::make_unique<AlignedBacking>(
      std::move(direct), std::move(buffered), alignment));
}

}  // namespace dmfs
