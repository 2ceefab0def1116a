// SPDX-License-Identifier: Apache-2.0
#include "core/io/aligned_backing.h"

#include <stdlib.h>

#include <algorithm>
#include <cerrno>

namespace dmfs {

// One bio that could not just be passed on.
class AlignedBacking::Job {
 public:
  static void start(AlignedBacking& file, Bio& bio) {
    Job* job = new (std::nothrow) Job(file, bio);
    if (!job) return bio.complete(ENOMEM);
    if (!op_modifies(bio.op)) return job->go();
    // Whole blocks need nothing from one another; part of a block keeps all others out of it.
    auto mode = job->exclusive() ? RangeLock::Mode::Exclusive : RangeLock::Mode::Shared;
    if (file.lock_.acquire(job->claim_, job->begin_, job->end_, mode)) job->go();
  }

 private:
  struct OwnBio : Bio {
    OwnBio(Job& job) : Bio(ended), job(job) {}
    static void ended(Bio& bio) { static_cast<OwnBio&>(bio).job.step_ended(bio.status); }
    Job& job;
  };
  struct OwnClaim : RangeLock::Claim {
    OwnClaim(Job& job) : Claim(granted), job(job) {}
    static void granted(Claim& claim) { static_cast<OwnClaim&>(claim).job.go(); }
    Job& job;
  };

  Job(AlignedBacking& file, Bio& bio)
      : file_(file), bio_(bio), own_(*this), claim_(*this), ragged_(!file.whole_blocks(bio)) {
    own_.origin = bio.origin;  // a cancel finds it
    uint64_t block = file.block_sectors_;
    begin_ = {bio.sector.n / block * block};
    end_ = {(bio.sector.n + bio.count.n + block - 1) / block * block};
  }
  ~Job() { free(memory_); }

  bool tail() const { return bio_.sector + bio_.count > file_.whole_end_; }
  bool exclusive() const { return op_has_data(bio_.op) && (ragged_ || tail()); }
  size_t head() const { return static_cast<size_t>((bio_.sector - begin_).bytes()); }

  // The range is ours, or needs not be.
  void go() {
    if (!op_has_data(bio_.op)) return pass_on(*file_.direct_);
    if (tail()) return pass_on(*file_.buffered_);
    if (!ragged_ && file_.aligned_memory(bio_)) return pass_on(*file_.direct_);
    size_t bytes = static_cast<size_t>((end_ - begin_).bytes());
    if (posix_memalign(&memory_, file_.alignment_, bytes) != 0) {
      memory_ = nullptr;
      return finish(ENOMEM);
    }
    segment_ = {memory_, bytes};
    if (bio_.op == Op::Read || ragged_) {
      step_ = Step::Read;
      send(Op::Read, 0);
    } else {
      write();
    }
  }

  void write() {
    copy_from_bio(bio_.data, 0, {static_cast<std::byte*>(memory_) + head(), bio_.bytes()});
    step_ = Step::Last;
    send(Op::Write, bio_.flags);
  }

  void send(Op op, uint8_t flags) {
    own_.op = op;
    own_.flags = flags;
    own_.sector = begin_;
    own_.count = end_ - begin_;
    own_.data = {&segment_, 1, 0};
    own_.pid = bio_.pid;
    own_.reset();
    file_.direct_->submit(own_);
  }

  void pass_on(BackingFile& file) {
    step_ = Step::Last;
    own_.op = bio_.op;
    own_.flags = bio_.flags;
    own_.sector = bio_.sector;
    own_.count = bio_.count;
    own_.data = bio_.data;
    own_.pid = bio_.pid;
    file.submit(own_);
  }

  void step_ended(int error) {
    if (error != 0 || step_ == Step::Last) return finish(error);
    if (bio_.op == Op::Write) return write();
    copy_to_bio(bio_.data, 0, {static_cast<std::byte*>(memory_) + head(), bio_.bytes()});
    finish(0);
  }

  void finish(int error) {
    if (op_modifies(bio_.op)) file_.lock_.release(claim_);
    Bio& bio = bio_;
    delete this;
    bio.complete(error);
  }

  enum class Step { Read, Last };

  AlignedBacking& file_;
  Bio& bio_;
  OwnBio own_;
  OwnClaim claim_;
  const bool ragged_;
  Sectors begin_, end_;  // whole blocks
  void* memory_ = nullptr;
  iovec segment_{};
  Step step_ = Step::Last;
};

AlignedBacking::AlignedBacking(std::unique_ptr<BackingFile> direct,
                               std::unique_ptr<BackingFile> buffered, uint32_t alignment)
    : direct_(std::move(direct)),
      buffered_(std::move(buffered)),
      alignment_(std::max<uint32_t>(alignment, kSectorSize)),
      block_sectors_(alignment_ >> kSectorShift),
      whole_end_{direct_->size().n / block_sectors_ * block_sectors_} {}

AlignedBacking::~AlignedBacking() = default;

bool AlignedBacking::whole_blocks(const Bio& bio) const {
  return (bio.sector.n | bio.count.n) % block_sectors_ == 0;
}

bool AlignedBacking::aligned_memory(const Bio& bio) const {
  size_t at = bio.data.offset;
  size_t left = bio.bytes();
  for (uint32_t i = 0; i < bio.data.segment_count && left > 0; ++i) {
    const iovec& segment = bio.data.segments[i];
    if (at >= segment.iov_len) {
      at -= segment.iov_len;
      continue;
    }
    size_t length = std::min(segment.iov_len - at, left);
    auto address = reinterpret_cast<uintptr_t>(segment.iov_base) + at;
    if ((address | length) % alignment_ != 0) return false;
    left -= length;
    at = 0;
  }
  return true;
}

void AlignedBacking::submit(Bio& bio) {
  if (bio.op == Op::Flush) return direct_->submit(bio);
  // Where blocks are sectors nothing is ever modified in parts, and nobody has to be kept out.
  bool needs_lock = op_modifies(bio.op) && block_sectors_ > 1;
  bool as_it_is = !op_has_data(bio.op) || (whole_blocks(bio) && aligned_memory(bio) &&
                                           bio.sector + bio.count <= whole_end_);
  if (as_it_is && !needs_lock) return direct_->submit(bio);
  Job::start(*this, bio);
}

std::string AlignedBacking::fault() const {
  std::string fault = direct_->fault();
  return fault.empty() ? buffered_->fault() : fault;
}

}  // namespace dmfs
