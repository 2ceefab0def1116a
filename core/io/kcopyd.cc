// SPDX-License-Identifier: Apache-2.0
// Jobs, and which of them has its turn. What is done to a piece is in kcopyd_piece.cc.
#include "core/io/kcopyd.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <new>
#include <utility>

#include <fmt/format.h>

#include "core/io/kcopyd_core.h"

namespace dmfs {

Result<std::unique_ptr<Kcopyd>> Kcopyd::create(IoClient& client, Clock& clock, Executor& work,
                                               const Options& options) {
  if (options.pieces == 0 || options.piece.n == 0 || options.throttle > 100 ||
      options.piece > sectors_of_bytes(client.max_size())) {
    return Error{EINVAL, fmt::format("copying in {} pieces of {} sectors, throttle {}",
                                     options.pieces, options.piece.n, options.throttle)};
  }
  auto core = std::make_unique<KcopydCore>(client, clock, work, options);
  DM_TRY_STATUS(core->reserve());
  return std::unique_ptr<Kcopyd>(new Kcopyd(std::move(core)));
}

Kcopyd::Kcopyd(std::unique_ptr<KcopydCore> core) : core_(std::move(core)) {}
Kcopyd::~Kcopyd() = default;
void Kcopyd::submit(CopyJob& job) { core_->submit(job); }
bool Kcopyd::cancel(CopyJob& job) { return core_->cancel(job); }
void Kcopyd::set_throttle(unsigned percent) { core_->set_throttle(percent); }
unsigned Kcopyd::throttle() const { return core_->throttle(); }
size_t Kcopyd::jobs() const { return core_->jobs(); }

KcopydCore::KcopydCore(IoClient& client, Clock& clock, Executor& work,
                       const Kcopyd::Options& options)
    : client_(client),
      clock_(clock),
      work_(work),
      options_(options),
      source_(options.buffers ? *options.buffers : BufferSource::heap()),
      alarm_(std::make_unique<Alarm>(clock, [this] { schedule(); })) {
  MutexLock lock(mutex_);
  duty_.set_percent(options.throttle);
}

Status KcopydCore::reserve() {
  auto bytes = static_cast<size_t>(options_.piece.bytes());
  unsigned devices = client_.devices();
  for (unsigned i = 0; i < options_.pieces; ++i) {
    auto piece = std::make_unique<Piece>();
    piece->core = this;
    piece->regions = std::make_unique<IoRegion[]>(devices);
    piece->errors = std::make_unique<int[]>(devices);
    piece->target = std::make_unique<unsigned[]>(devices);
    piece->buffer = source_.get(bytes);
    if (!piece->buffer) return Error{ENOMEM, "no memory for the reserves of copying"};
    std::memset(piece->buffer, 0, bytes);  // the kernel has promised it; now it is there
    MutexLock lock(mutex_);
    piece->next = free_;
    free_ = piece.get();
    pieces_.push_back(std::move(piece));
  }
  return {};
}

KcopydCore::~KcopydCore() {
  std::vector<IoHandle> handles;
  {
    MutexLock lock(mutex_);
    closing_ = true;
    for (CopyJob* job = first_; job; job = job->next_job_) {
      job->stopping_ = job->outcome_.cancelled = true;
    }
    for (auto& piece : pieces_) handles.push_back(piece->handle);
  }
  alarm_.reset();
  for (const IoHandle& handle : handles) (void)client_.cancel(handle);
  if (jobs() > 0) schedule();
  {
    MutexLock lock(mutex_);
    while (jobs_ > 0 || active_ > 0 || scheduled_ || entered_ > 0) changed_.wait(mutex_);
  }
  for (auto& piece : pieces_) source_.put(piece->buffer);
}

bool KcopydCore::valid(const CopyJob& job) const {
  return !job.destinations.empty() && job.destinations.size() <= client_.devices() &&
         job.count <= kMaxDeviceSectors &&
         std::all_of(job.destinations.begin(), job.destinations.end(),
                     [](const CopyJob::Place& place) { return place.file != nullptr; });
}

void KcopydCore::submit(CopyJob& job) {
  job.outcome_ = {};
  job.copied_.store(0, std::memory_order_relaxed);
  job.total_.store(job.count.n, std::memory_order_relaxed);
  bool refused = !valid(job);
  if (refused) job.outcome_.error = EINVAL;
  if (refused || job.count.n == 0) return post_ended(job);
  {
    MutexLock lock(mutex_);
    assert(!job.submitted_);
    job.next_ = {};
    job.running_ = 0;
    job.stopping_ = false;
    job.not_in_kernel_ = job.in_kernel && job.source.file ? 0 : ~uint64_t{0};
    job.submitted_ = true;
    ++jobs_;
    link(job);
  }
  schedule();
}

bool KcopydCore::cancel(CopyJob& job) {
  // The handles are the reason for the loop: they are used without the mutex, and their number is
  // not known beforehand.
  bool begun = false;
  size_t next = 0;
  while (true) {
    IoHandle handle;
    {
      MutexLock lock(mutex_);
      if (!begun) {
        begun = true;
        if (!job.submitted_ || job.outcome_.cancelled) return false;
        job.stopping_ = job.outcome_.cancelled = true;
        ++job.running_;  // it does not end while this is at it
        ++entered_;
      }
      while (next < pieces_.size() && pieces_[next]->job != &job) ++next;
      if (next < pieces_.size()) handle = pieces_[next]->handle;
    }
    if (next++ >= pieces_.size()) break;
    (void)client_.cancel(handle);
  }
  {
    MutexLock lock(mutex_);
    --job.running_;
  }
  schedule();
  MutexLock lock(mutex_);
  if (--entered_ == 0) changed_.notify_all();
  return true;
}

void KcopydCore::set_throttle(unsigned percent) {
  {
    MutexLock lock(mutex_);
    duty_.set_percent(percent);
  }
  schedule();
}

unsigned KcopydCore::throttle() const {
  MutexLock lock(mutex_);
  return duty_.percent();
}

size_t KcopydCore::jobs() const {
  MutexLock lock(mutex_);
  return jobs_;
}

void KcopydCore::schedule() {
  {
    MutexLock lock(mutex_);
    if (std::exchange(scheduled_, true)) return;
    ++entered_;
  }
  work_.post([this] { run(); });
  MutexLock lock(mutex_);
  if (--entered_ == 0) changed_.notify_all();
}

void KcopydCore::run() {
  {
    MutexLock lock(mutex_);
    scheduled_ = false;
    ++entered_;
  }
  while (true) {
    Piece* done;
    CopyJob* ended = nullptr;
    {
      MutexLock lock(mutex_);
      done = done_;
      if (done) {
        done_ = done->next;
        if (!done_) done_tail_ = nullptr;
        done->handle = {};
      } else {
        // Those that were cancelled before any of it had begun.
        for (CopyJob* job = first_; job && !ended; job = job->next_job_) {
          if (take_ended(*job)) ended = job;
        }
      }
    }
    if (done) {
      note_request(*done);
      advance(*done);
    } else if (ended) {
      post_ended(*ended);
    } else if (!begin_piece()) {
      break;
    }
  }
  MutexLock lock(mutex_);
  --entered_;
  changed_.notify_all();
}

// False: nobody may, or there is nothing to do.
bool KcopydCore::begin_piece() {
  Piece* piece;
  {
    MutexLock lock(mutex_);
    CopyJob* job = first_;
    while (job && (job->stopping_ || job->next_ >= job->count)) job = job->next_job_;
    if (!job || !free_ || closing_) return false;
    Clock::Time now = clock_.now();
    if (!duty_.may_begin(now)) {
      if (Clock::Time at = duty_.rest_ends(); at != Clock::Time::max()) alarm_->set(at);
      return false;
    }
    duty_.begin(now);
    piece = std::exchange(free_, free_->next);
    piece->job = job;
    piece->at = job->next_;
    ++active_;
    ++job->running_;
    // Behind those of the same priority.
    unlink(*job);
    link(*job);
  }
  plan(*piece);
  {
    MutexLock lock(mutex_);
    piece->job->next_ += piece->count;
  }
  advance(*piece);
  return true;
}

void KcopydCore::end_piece(Piece& piece) {
  CopyJob& job = *piece.job;
  bool ended;
  {
    MutexLock lock(mutex_);
    if (!piece.read_failed && !piece.gave_up) {
      job.copied_.fetch_add(piece.count.n, std::memory_order_relaxed);
    }
    --job.running_;
    --active_;
    duty_.end(clock_.now());
    piece.job = nullptr;
    piece.next = free_;
    free_ = &piece;
    ended = take_ended(job);
  }
  if (ended) post_ended(job);
}

void KcopydCore::note_error(CopyJob& job, int error, bool read, unsigned destination) {
  MutexLock lock(mutex_);
  if (job.outcome_.cancelled) return;  // a consequence
  if (job.outcome_.error == 0) job.outcome_.error = error;
  if (read) {
    job.outcome_.read_error = true;
  } else {
    job.outcome_.write_errors |= uint64_t{1} << destination;
  }
  if (!job.ignore_errors) job.stopping_ = true;
}

void KcopydCore::link(CopyJob& job) {
  CopyJob* before = last_;
  while (before && before->priority < job.priority) before = before->prev_job_;
  job.prev_job_ = before;
  job.next_job_ = before ? before->next_job_ : first_;
  (before ? before->next_job_ : first_) = &job;
  (job.next_job_ ? job.next_job_->prev_job_ : last_) = &job;
}

void KcopydCore::unlink(CopyJob& job) {
  (job.prev_job_ ? job.prev_job_->next_job_ : first_) = job.next_job_;
  (job.next_job_ ? job.next_job_->prev_job_ : last_) = job.prev_job_;
}

bool KcopydCore::take_ended(CopyJob& job) {
  if (job.running_ > 0 || !(job.stopping_ || job.next_ >= job.count)) return false;
  if (job.outcome_.cancelled && job.outcome_.error == 0) job.outcome_.error = ECANCELED;
  unlink(job);
  job.submitted_ = false;
  --jobs_;
  return true;
}

void KcopydCore::post_ended(CopyJob& job) {
  job.queue->post([&job] {
    CopyJob::Outcome outcome = job.outcome_;
    job.ended(outcome);
  });
}

}  // namespace dmfs
