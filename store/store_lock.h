// SPDX-License-Identifier: Apache-2.0
// One daemon per store: a lock on the file "<store>.lock", which holds the holder's pid in decimal.
#pragma once

#include <string>

#include "core/base/result.h"

namespace dmfs {

// Held from take() to destruction; the kernel releases it when the process dies. The lock belongs
// to the open file description: a second take() in the same process is refused too, and a child
// that is forked without exec would share it, so take it after the last such fork.
class StoreLock {
 public:
  // `store` is the store's resolved path (see store_file.h). EBUSY when somebody holds it:
  // "store X is in use by dmfs with pid N".
  static Result<StoreLock> take(const std::string& store);

  StoreLock(StoreLock&& other) noexcept;
  StoreLock& operator=(StoreLock&&) = delete;
  ~StoreLock();

 private:
  StoreLock(std::string file, int fd) : file_(std::move(file)), fd_(fd) {}

  std::string file_;
  int fd_;  // -1 when moved from
};

}  // namespace dmfs
