// SPDX-License-Identifier: Apache-2.0
#include "core/io/uring.h"

#include <fmt/format.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <system_error>
#include <thread>
#include <utility>

#include "core/base/mutex.h"

namespace dmfs {
namespace {

constexpr unsigned kSubmissions = 256;
constexpr unsigned kCompletions = 4096;
constexpr unsigned kMaxInside = kCompletions - 1;  // the wake-up has its place too
constexpr unsigned kMaxRings = 4;

// The completion of a cancel; what it was for ends by itself.
char cancel_done;

}  // namespace

class Uring::Ring {
 public:
  Ring() = default;
  ~Ring() {
    if (thread_.joinable()) {
      {
        MutexLock lock(mutex_);
        stopping_ = true;
      }
      wake();
      thread_.join();
    }
    if (wake_fd_ >= 0) close(wake_fd_);
  }

  Status start() {
    wake_fd_ = eventfd(0, EFD_CLOEXEC);
    if (wake_fd_ < 0) return Error{errno, fmt::format("eventfd: {}", strerror(errno))};
    // The ring is made by the thread that uses it, as IORING_SETUP_SINGLE_ISSUER wants it.
    std::promise<int> made;
    std::future<int> outcome = made.get_future();
    try {
      thread_ = std::thread([this, made = std::move(made)]() mutable {
        int error = make();
        made.set_value(error);
        if (error == 0) run();
      });
    } catch (const std::system_error& failed) {
      return Error{failed.code().value(), fmt::format("no thread: {}", failed.what())};
    }
    if (int error = outcome.get(); error != 0) {
      thread_.join();
      return Error{-error, fmt::format("io_uring_setup: {}", strerror(-error))};
    }
    return {};
  }

  void submit(UringTransfer& transfer) {
    transfer.next = nullptr;
    bool asleep;
    {
      MutexLock lock(mutex_);
      transfer.number = ++numbers_;
      (tail_ ? tail_->next : head_) = &transfer;
      tail_ = &transfer;
      asleep = std::exchange(sleeping_, false);
    }
    if (asleep) wake();
  }

  void cancel(const void* owner, const BioCancel& cancel) {
    bool asleep;
    {
      MutexLock lock(mutex_);
      cancels_.push_back({owner, cancel, numbers_});
      asleep = std::exchange(sleeping_, false);
    }
    if (asleep) wake();
  }

 private:
  struct Cancel {
    const void* owner;
    BioCancel what;
    uint64_t up_to;  // the number of the last transfer that was submitted before

    bool wants(const UringTransfer& transfer) const {
      return transfer.owner == owner && transfer.number <= up_to && what.wants(*transfer.bio);
    }
  };

  int make() {
    // From best to plainest: 6.1, 6.0, and what every kernel with io_uring knows.
    const unsigned flags[] = {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                  IORING_SETUP_TASKRUN_FLAG,
                              IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0};
    int error = -ENOSYS;
    for (unsigned extra : flags) {
      io_uring_params params{};
      params.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | extra;
      params.cq_entries = kCompletions;
      error = io_uring_queue_init_params(kSubmissions, &ring_, &params);
      if (error != -EINVAL) break;
    }
    return error;
  }

  void wake() {
    uint64_t one = 1;
    (void)!write(wake_fd_, &one, sizeof(one));
  }

  void run() {
    bool busy = true;
    while (busy) {
      if (!armed_) arm_wake();
      UringTransfer* queued = take();
      if (!cancelling_.empty()) queued = carry_out_cancels();
      prepare(queued);
      bool idle = armed_ && !backlog_ && cancelling_.empty();
      bool wait = inside_ >= kMaxInside || (idle && sleep_if_idle());
      flush(wait);
      reap();
      MutexLock lock(mutex_);
      sleeping_ = false;
      busy = !stopping_ || head_ || backlog_ || inside_ > 0 || cancels_inside_ > 0;
    }
    io_uring_queue_exit(&ring_);
  }

  // All that was queued, behind what did not fit in before.
  UringTransfer* take() {
    MutexLock lock(mutex_);
    if (head_) {
      (backlog_tail_ ? backlog_tail_->next : backlog_) = head_;
      backlog_tail_ = tail_;
      head_ = tail_ = nullptr;
    }
    if (cancelling_.empty()) {
      cancelling_.swap(cancels_);
    } else {
      cancelling_.insert(cancelling_.end(), cancels_.begin(), cancels_.end());
      cancels_.clear();
    }
    return backlog_;
  }

  // Of what the kernel does not have yet, drops what is not wanted any more; asks the kernel to
  // do so with the rest. Cancels for which there is no place are left for the next time.
  UringTransfer* carry_out_cancels() {
    UringTransfer* dropped = nullptr;
    while (!cancelling_.empty()) {
      const Cancel& cancel = cancelling_.back();
      backlog_tail_ = nullptr;
      for (UringTransfer** link = &backlog_; UringTransfer* transfer = *link;) {
        if (cancel.wants(*transfer)) {
          *link = transfer->next;
          transfer->next = dropped;
          dropped = transfer;
        } else {
          backlog_tail_ = transfer;
          link = &transfer->next;
        }
      }
      if (!ask_kernel(cancel)) break;
      cancelling_.pop_back();
    }
    // The functions may submit, but only to the queue.
    while (UringTransfer* transfer = dropped) {
      dropped = transfer->next;
      transfer->ended(*transfer, -ECANCELED);
    }
    return backlog_;
  }

  bool ask_kernel(const Cancel& cancel) {
    for (UringTransfer* transfer = inside_list_; transfer; transfer = transfer->inside_next) {
      if (!cancel.wants(*transfer)) continue;
      io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
      if (!sqe) return false;
      io_uring_prep_cancel(sqe, transfer, 0);
      io_uring_sqe_set_data(sqe, &cancel_done);
      ++cancels_inside_;
    }
    return true;
  }

  void enter(UringTransfer& transfer) {
    transfer.inside_prev = nullptr;
    transfer.inside_next = inside_list_;
    if (inside_list_) inside_list_->inside_prev = &transfer;
    inside_list_ = &transfer;
    ++inside_;
  }
  void leave(UringTransfer& transfer) {
    (transfer.inside_prev ? transfer.inside_prev->inside_next : inside_list_) = transfer.inside_next;
    if (transfer.inside_next) transfer.inside_next->inside_prev = transfer.inside_prev;
    --inside_;
  }

  bool sleep_if_idle() {
    MutexLock lock(mutex_);
    if (head_ || !cancels_.empty() || (stopping_ && inside_ == 0 && cancels_inside_ == 0)) return false;
    sleeping_ = true;
    return true;
  }

  void prepare(UringTransfer* transfer) {
    while (transfer && inside_ < kMaxInside) {
      io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
      if (!sqe) break;
      UringTransfer* next = transfer->next;
      auto offset = static_cast<uint64_t>(transfer->offset);
      if (transfer->read) {
        io_uring_prep_readv(sqe, transfer->fd, transfer->segments, transfer->segment_count, offset);
      } else {
        io_uring_prep_writev(sqe, transfer->fd, transfer->segments, transfer->segment_count, offset);
      }
      sqe->rw_flags = transfer->rw_flags;
      io_uring_sqe_set_data(sqe, transfer);
      enter(*transfer);
      transfer = next;
    }
    backlog_ = transfer;
    if (!backlog_) backlog_tail_ = nullptr;
  }

  void arm_wake() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (!sqe) return;
    io_uring_prep_read(sqe, wake_fd_, &wakes_, sizeof(wakes_), 0);
    io_uring_sqe_set_data(sqe, nullptr);
    armed_ = true;
  }

  void flush(bool wait) {
    int sent = io_uring_submit_and_wait(&ring_, wait ? 1 : 0);
    // Not enough memory, or completions to be reaped first: what was prepared stays and goes with
    // the next call.
    if (sent < 0 && sent != -EINTR && inside_ == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  void reap() {
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
      void* data = io_uring_cqe_get_data(cqe);
      ssize_t result = cqe->res;
      io_uring_cqe_seen(&ring_, cqe);
      if (!data) {
        armed_ = false;
        continue;
      }
      if (data == &cancel_done) {
        --cancels_inside_;
        continue;
      }
      auto* transfer = static_cast<UringTransfer*>(data);
      leave(*transfer);
      transfer->ended(*transfer, result);
    }
  }

  // the thread's, besides start()
  io_uring ring_{};
  unsigned inside_ = 0;  // given to the kernel (or prepared for it), not ended
  uint64_t wakes_ = 0;
  bool armed_ = false;   // a read of wake_fd_ is inside
  UringTransfer* backlog_ = nullptr;
  UringTransfer* backlog_tail_ = nullptr;
  UringTransfer* inside_list_ = nullptr;
  std::vector<Cancel> cancelling_;  // to be carried out
  unsigned cancels_inside_ = 0;

  // constant after start()
  int wake_fd_ = -1;
  std::thread thread_;

  Mutex mutex_;  // leaf
  UringTransfer* head_ DM_GUARDED_BY(mutex_) = nullptr;
  UringTransfer* tail_ DM_GUARDED_BY(mutex_) = nullptr;
  uint64_t numbers_ DM_GUARDED_BY(mutex_) = 0;
  std::vector<Cancel> cancels_ DM_GUARDED_BY(mutex_);
  bool sleeping_ DM_GUARDED_BY(mutex_) = false;  // or about to, and wants to be woken
  bool stopping_ DM_GUARDED_BY(mutex_) = false;
};

Uring::Uring() = default;
Uring::~Uring() = default;

Result<std::unique_ptr<Uring>> Uring::create() {
  std::unique_ptr<Uring> uring(new Uring);
  unsigned count = std::clamp(std::thread::hardware_concurrency(), 1u, kMaxRings);
  for (unsigned i = 0; i < count; ++i) {
    auto ring = std::make_unique<Ring>();
    DM_TRY_STATUS(ring->start());
    uring->rings_.push_back(std::move(ring));
  }
  return uring;
}

void Uring::submit(UringTransfer& transfer) {
  static std::atomic<unsigned> next{0};
  thread_local unsigned mine = next.fetch_add(1, std::memory_order_relaxed);
  rings_[mine % rings_.size()]->submit(transfer);
}

void Uring::cancel(const void* owner, const BioCancel& cancel) {
  for (auto& ring : rings_) ring->cancel(owner, cancel);
}

}  // namespace dmfs
