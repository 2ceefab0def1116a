// SPDX-License-Identifier: Apache-2.0
// I/O to several files at once, from which one can walk away. A request goes to one or more regions
// of files, and each region reports for itself: OK, TIMEOUT (overdue, but still running; once),
// CANCELLED, ERROR.
//
// A write or read that a file has been given cannot be taken back. So a request that may be
// cancelled uses memory of the client's, and after CANCELLED nothing touches the caller's; what
// completes late is dropped. It follows, and callers have to know:
// - A write (discard, write-zeroes) that was cancelled, or is overdue, may still reach the file at
//   any later time, or in part, or never. Until then what is in that range is undetermined, and
//   reads of it may see either.
// - It is never overtaken: of two changes of overlapping ranges of one BackingFile through one
//   client, the later one waits inside the client until the file has ended the earlier one, also if
//   that was cancelled or is overdue. So once a change has ended as OK no older one can undo it,
//   and whoever reads after that reads what is to stay. Reads need not wait for this and do not.
// - Other clients, and other BackingFile objects of the same file, know nothing of it. Who shares
//   a file with cancellable writes shares the client.
// - The files have to outlive what is late: wait_late(), or the client's destructor.
//
// A client has memory in reserve for `min_ios` requests. While there is other memory more are
// under way; when there is not, the rest wait their turn, and those that run need nothing to get
// to their end. What is late keeps its share, but one file never has more late I/O than half of
// min_ios (and one): what comes for it then waits in the client, until it is cancelled or the file
// wakes up, and holds up nobody else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/base/clock.h"
#include "core/base/result.h"
#include "core/io/buffer_source.h"
#include "core/io/io_request.h"

namespace dmfs {

class Alarm;

class IoClient {
 public:
  static constexpr unsigned kMaxDevices = 64;

  // What the destructor does with requests that are outstanding.
  enum class OnClose : uint8_t { Wait, Cancel };

  struct Options {
    unsigned devices = 1;   // regions of a request at most; 1 to kMaxDevices
    unsigned min_ios = 16;  // requests that can run whatever happens
    size_t max_size = size_t{1} << 20;  // bytes of data of a region at most
    OnClose on_close = OnClose::Cancel;
    BufferSource* buffers = nullptr;    // nullptr: the heap
  };
  // Gets min_ios * max_size bytes, and some. EINVAL (options), ENOMEM.
  static Result<std::unique_ptr<IoClient>> create(Clock& clock, const Options& options);

  // Waits for what is outstanding, or cancels it, notices included; then for what is late, for the
  // files are free to go after that. Not from a notice. Nothing is submitted any more.
  ~IoClient();
  IoClient(const IoClient&) = delete;
  IoClient& operator=(const IoClient&) = delete;

  // Starts the request, or queues it; never blocks for long. A request that cannot be (too many
  // regions, too little memory, larger than max_size) is told as ERROR EINVAL. Any thread, also
  // from a notice; the caller holds no lock that its notify function takes. From within a notice
  // (of any client) the I/O starts when that notice has returned.
  IoHandle submit(IoRequest& request);

  // Returns when all regions are final and all notices given. Bit i: region i did not end as OK.
  // Not from a notice, nor on a thread of a clock or of I/O.
  uint64_t submit_and_wait(IoRequest& request);

  // Ends as CANCELLED what is outstanding of the request, or of every request on the file (other
  // regions of the same requests go on); how many regions that were. They have been told, and the
  // request is returned if these were the last, when this returns: save that a notice which is
  // being given at the moment (perhaps by the caller's caller) goes first, and its thread gives
  // these. Nothing happens to what is final already. Any thread, also from a notice.
  size_t cancel(const IoHandle& handle);
  size_t cancel(BackingFile& file);

  // What was cancelled and is still in the file (in any file).
  size_t late(BackingFile& file) const;
  size_t late() const;
  // Waits until nothing of it is: with a file that hangs, for ever.
  void wait_late(BackingFile& file);

  // Requests that have not been returned.
  size_t outstanding() const;
  // Requests that wait for memory.
  size_t waiting() const;
  size_t max_size() const;
  unsigned devices() const;

 private:
  explicit IoClient(std::shared_ptr<IoClientCore> core, Clock& clock);

  const std::shared_ptr<IoClientCore> core_;  // shared with handles
  std::unique_ptr<Alarm> alarm_;
};

}  // namespace dmfs
