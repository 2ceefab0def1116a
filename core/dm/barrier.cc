// SPDX-License-Identifier: Apache-2.0
// How a mapped device carries out barriers. A barrier closes the door, as a suspend does, and waits
// on the deferred list with all that comes after it. A thread of the device's own, the sequencer,
// sends the list in order: it waits until nothing is in flight, then does flush, bio, flush, and
// goes on; when nothing is left it opens the door. A suspend comes first: while it is blocked the
// sequencer begins nothing, and what it has begun the suspend waits for.
#include <system_error>
#include <utility>

#include "core/dm/mapped_device.h"

namespace dmfs {

bool MappedDevice::sequencing() const {
  MutexLock lock(held_mutex_);
  return ordering_ || sequencing_;
}

bool MappedDevice::is_barrier(Bio& bio) const {
  if (bio.op == Op::Write && (bio.flags & kBioFua) && ordered()) bio.flags |= kBioBarrier;
  return (bio.flags & kBioBarrier) != 0;
}

void MappedDevice::submit_barrier(Bio& bio) {
  int refused;
  bool tell = false;
  {
    MutexLock lock(held_mutex_);
    refused = start_sequencer();
    if (!refused) refused = defer(bio, tell);
    if (!refused) {
      in_flight_.close();
      ordering_ = true;
      sequencer_wake_.notify_all();
    }
  }
  if (tell) events_.raise();
  if (refused) bio.complete(refused);
}

int MappedDevice::start_sequencer() {
  if (sequencer_.joinable()) return 0;
  try {
    sequencer_ = std::thread([this] { run_sequencer(); });
  } catch (const std::system_error& error) {
    return error.code().value() ? error.code().value() : EAGAIN;
  }
  return 0;
}

void MappedDevice::stop_sequencer() {
  std::thread thread;
  {
    MutexLock lock(held_mutex_);
    stopping_ = true;
    sequencer_wake_.notify_all();
    thread = std::move(sequencer_);
  }
  if (thread.joinable()) thread.join();
}

void MappedDevice::run_sequencer() {
  for (;;) {
    Bio* barrier = nullptr;
    {
      MutexLock lock(held_mutex_);
      sequencing_ = false;
      sequence_ended_.notify_all();
      while (!stopping_ && !may_sequence()) sequencer_wake_.wait(held_mutex_);
      if (stopping_) return;
      Bio* first = deferred_.front();
      if (first && (first->flags & kBioBarrier)) {
        barrier = first;
        reconsider_.store(false);
      } else {
        sequencing_ = true;
      }
    }
    if (!barrier) {
      issue_held(Issuer::Sequencer);
    } else if (in_flight_.wait_empty([this] { return reconsider_.load(); }) &&
               take_barrier(*barrier)) {
      run_barrier(*barrier);
    }
  }
}

bool MappedDevice::take_barrier(Bio& bio) {
  MutexLock lock(held_mutex_);
  // The device was empty a moment ago, and is still unless a suspend has come and gone: what that
  // has let in again, or put before the barrier, goes first. Or the barrier has been cancelled.
  if (reconsider_.load() || !may_sequence() || deferred_.front() != &bio) return false;
  deferred_.pop_front();
  sequencing_ = true;
  return true;
}

void MappedDevice::run_barrier(Bio& bio) {
  taken(bio);
  int error = run_steps(bio);
  Sense sense = step_.sense;
  if (error == kRequeue) {
    if (push_back(bio)) return;
    error = bio.cancelled() ? bio.cancelled() : EIO;
    sense = {};
  }
  bio.complete(error, sense);
}

int MappedDevice::run_steps(Bio& bio) {
  int error = run_step(bio, Op::Flush);
  if (error || bio.op == Op::Flush) return error;
  error = run_step(bio, bio.op);
  if (!op_modifies(bio.op) || error == EOPNOTSUPP || error == kRequeue) return error;
  // Also after an error: a part may have been written.
  Sense sense = step_.sense;
  int flushed = run_step(bio, Op::Flush);
  if (error == 0 || flushed == EOPNOTSUPP || flushed == kRequeue) return flushed;
  step_.sense = sense;
  return error;
}

int MappedDevice::run_step(Bio& bio, Op op) {
  step_.reset();
  if (int cancelled = bio.cancelled()) return cancelled;
  bool flush = op == Op::Flush;
  step_.op = op;
  step_.flags = 0;
  step_.slot = 0;
  step_.sector = flush ? Sectors{} : bio.sector;
  step_.count = flush ? Sectors{} : bio.count;
  step_.data = flush ? BioData{} : bio.data;
  step_.pid = bio.pid;
  step_.origin = bio.origin;
  start(step_, in_flight_.enter_closed());
  MutexLock lock(held_mutex_);
  while (!step_done_) sequencer_wake_.wait(held_mutex_);
  step_done_ = false;
  return step_.status;
}

void MappedDevice::step_ended(Bio& bio) {
  MappedDevice& device = static_cast<Step&>(bio).owner;
  MutexLock lock(device.held_mutex_);
  device.step_done_ = true;
  device.sequencer_wake_.notify_all();
}

}  // namespace dmfs
