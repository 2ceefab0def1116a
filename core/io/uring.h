// SPDX-License-Identifier: Apache-2.0
// Reads and writes through io_uring. A few rings, each with one thread that alone submits to it and
// reaps it: a request must not hang on the life of the thread that asked for it (the kernel cancels
// what a thread that ends has submitted), and what comes while the thread is busy goes to the kernel
// in one batch.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <memory>
#include <vector>

#include "core/base/result.h"
#include "core/io/bio.h"

namespace dmfs {

// One read or write of a file. Belongs to the caller, who keeps it and the memory until `ended`.
struct UringTransfer {
  // Called once, on a thread of the ring, no lock held: how many bytes (perhaps fewer than asked
  // for), or a negative errno. May submit the transfer again.
  void (*ended)(UringTransfer& transfer, ssize_t result) = nullptr;
  bool read = true;
  int fd = -1;
  const iovec* segments = nullptr;
  unsigned segment_count = 0;
  off_t offset = 0;
  int rw_flags = 0;  // RWF_*
  const void* owner = nullptr;  // who may cancel it: any address
  const Bio* bio = nullptr;     // what it is part of
  // the ring's
  UringTransfer* next = nullptr;
  UringTransfer* inside_prev = nullptr;
  UringTransfer* inside_next = nullptr;
  uint64_t number = 0;
};

class Uring {
 public:
  // ENOSYS or EPERM where io_uring is forbidden, ENOMEM...
  static Result<std::unique_ptr<Uring>> create();
  ~Uring();  // nothing is outstanding
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;

  // Any thread; never blocks.
  void submit(UringTransfer& transfer);
  // Asks for the end of the owner's transfers whose bios `cancel` wants, of those submitted so far.
  // They end with -ECANCELED, soon; or as they would have, where the kernel has them in hand. Any
  // thread; never blocks.
  void cancel(const void* owner, const BioCancel& cancel);

 private:
  class Ring;
  Uring();

  std::vector<std::unique_ptr<Ring>> rings_;  // constant after create()
};

}  // namespace dmfs
