// SPDX-License-Identifier: Apache-2.0
#include "core/io/file_facts.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>

#include "core/base/units.h"

namespace dmfs {

FileSystem file_system_of(int fd) {
  struct statfs fs;
  if (fstatfs(fd, &fs) != 0) return FileSystem::Remote;
  switch (static_cast<uint32_t>(fs.f_type)) {
    case 0x01021994:  // tmpfs
    case 0x858458F6:  // ramfs
    case 0x958458F6:  // hugetlbfs
      return FileSystem::Memory;
    // Those whose operations wait for something outside this kernel.
    case 0x65735546:  // FUSE
    case 0x6969:      // NFS
    case 0xFF534D42:  // CIFS
    case 0xFE534D42:  // SMB2
    case 0x517B:      // SMB
    case 0x01021997:  // 9p
    case 0x00C36400:  // Ceph
    case 0x5346414F:  // AFS
    case 0x0BD00BD0:  // Lustre
    case 0x47504653:  // GPFS
    case 0x7461636F:  // OCFS2
    case 0x01161970:  // GFS2
      return FileSystem::Remote;
    default:
      return FileSystem::Local;
  }
}

uint32_t find_direct_alignment(int fd, bool is_block_device) {
  constexpr uint32_t kPage = 4096;
  if (is_block_device) {
    int block = 0;
    return ioctl(fd, BLKSSZGET, &block) == 0 ? static_cast<uint32_t>(block) : kPage;
  }
  // Linux 6.1 tells for some file systems.
  struct statx st {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 &&
      (st.stx_mask & STATX_DIOALIGN)) {
    return std::max(st.stx_dio_offset_align, st.stx_dio_mem_align);
  }
  // Others are tried out.
  void* memory = nullptr;
  if (posix_memalign(&memory, kPage, kPage) != 0) return kPage;
  uint32_t alignment = 0;
  for (uint32_t size : {static_cast<uint32_t>(kSectorSize), kPage}) {
    if (alignment == 0 && pread(fd, memory, size, 0) >= 0) alignment = size;
  }
  free(memory);
  return alignment;
}

}  // namespace dmfs
