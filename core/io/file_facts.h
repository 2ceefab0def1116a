// SPDX-License-Identifier: Apache-2.0
// What an open file lies on, and what direct I/O to it asks for.
#pragma once

#include <cstdint>

namespace dmfs {

enum class FileSystem {
  Memory,  // tmpfs and the like: waits for nothing
  Local,
  Remote,  // waits for something outside this kernel, perhaps for ever
};

// Remote where it cannot be told.
FileSystem file_system_of(int fd);

// For a descriptor that was opened O_DIRECT: what offsets, lengths and memory have to be multiples
// of, in bytes; 0: there is no direct I/O. May read from the file.
uint32_t find_direct_alignment(int fd, bool is_block_device);

}  // namespace dmfs
