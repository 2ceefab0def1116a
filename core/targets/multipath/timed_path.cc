// SPDX-License-Identifier: Apache-2.0
#include "core/targets/multipath/timed_path.h"

#include <utility>

#include "core/base/object_pool.h"

namespace dmfs {
namespace {

constexpr unsigned kMinIos = 8;

}  // namespace

class TimedPaths::Path final : public BackingFile {
 public:
  Path(TimedPaths& owner, BackingFile& below, const std::atomic<bool>& in_use)
      : paths(owner), file(below), works(in_use) {}

  void submit(Bio& bio) override;
  std::string name() const override { return file.name(); }
  Sectors size() const override { return file.size(); }

  TimedPaths& paths;
  BackingFile& file;
  const std::atomic<bool>& works;
  std::atomic<uint64_t> stale{0};        // changes
  std::atomic<uint64_t> stale_bytes{0};  // of their data
};

// A bio on its way through the client. `bio` is nullptr when it has been told.
struct TimedPaths::Request final : IoNotify {
  void notified(const IoNotice& notice) override { path->paths.notified(*this, notice); }

  Path* path = nullptr;
  Bio* bio = nullptr;
  std::shared_ptr<PathFence> fence;  // of a change: of the table that sent it; kept for the leaving
  PathFence::Hold* hold = nullptr;
  std::shared_ptr<PathFence::Data> data;  // with `hold`
  IoRegion region;
  IoRequest request;
  Request* pool_next = nullptr;
};

Result<std::unique_ptr<TimedPaths>> TimedPaths::create(TargetContext& context,
                                                       Clock::Duration timeout) {
  std::unique_ptr<TimedPaths> paths(new TimedPaths(context, timeout));
  DM_TRY(paths->client_,
         IoClient::create(context.clock(),
                          {.min_ios = kMinIos, .max_size = static_cast<size_t>(kMaxIo.bytes())}));
  return paths;
}

TimedPaths::TimedPaths(TargetContext& context, Clock::Duration timeout)
    : context_(context),
      timeout_(timeout),
      fence_(std::make_shared<PathFence>(static_cast<Host&>(*this), context.held_budget())) {}

TimedPaths::~TimedPaths() { client_.reset(); }

BackingFile& TimedPaths::add(BackingFile& file, const std::atomic<bool>& works) {
  paths_.push_back(std::make_unique<Path>(*this, file, works));
  return *paths_.back();
}

uint64_t TimedPaths::stale(const BackingFile& path) const {
  return static_cast<const Path&>(path).stale.load(std::memory_order_relaxed);
}

void TimedPaths::Path::submit(Bio& bio) {
  if (stale_bytes.load(std::memory_order_relaxed) >= kMaxStaleBytes) return bio.complete(kPathTimedOut);
  if (!op_modifies(bio.op)) return paths.send(*this, bio, nullptr);
  int refused = 0;
  bool tell = false;
  PathFence::Hold* hold = paths.fence_->enter(bio, refused, tell);
  if (tell) paths.context_.raise_event();  // while the bio still keeps the table in use
  if (hold) {
    paths.send(*this, bio, hold);
  } else if (refused) {
    bio.complete(refused == kRequeue ? kPathPushedBack
                 : refused == ENOMEM ? kPathNoMemory
                                     : refused);
  }
}

void TimedPaths::let_in(Bio& bio, PathFence::Hold& hold) {
  Path& path = static_cast<Path&>(*bio.dev);
  if (path.works.load(std::memory_order_relaxed)) return send(path, bio, &hold);
  fence_->leave(hold, PathFence::Was::InTime);
  bio.complete(kPathLeft);
}

void TimedPaths::send(Path& path, Bio& bio, PathFence::Hold* hold) {
  if (hold && bio.op == Op::Write && !fence_->provide_data(*hold, bio)) {
    fence_->leave(*hold, PathFence::Was::InTime);
    return bio.complete(kPathNoMemory);
  }
  Request& to = *ObjectPool<Request>::get();
  to.path = &path;
  to.bio = &bio;
  to.hold = hold;
  to.fence = hold ? fence_ : nullptr;
  to.data = hold ? fence_->data(*hold) : nullptr;
  to.region = IoRegion(path.file, bio.sector, bio.count);
  IoRequest& request = to.request;
  request.op = bio.op;
  request.flags = bio.flags;
  request.regions = {&to.region, 1};
  request.notify = &to;
  request.timeout = timeout_;
  request.pid = bio.pid;
  // A read that is overdue is given up, and lands in memory of the client's. A change is told to be
  // overdue, and once more when the path has ended it: in memory that stays, and without a copy.
  request.cancel_on_timeout = true;
  request.cancellable = !hold;
  if (to.data) {
    request.memory = IoMemory::contiguous(to.data->bytes(), to.data->size());
  } else if (op_has_data(bio.op)) {
    request.memory = IoMemory::scatter({bio.data.segments, bio.data.segment_count}, bio.data.offset);
  } else {
    request.memory = {};
  }
  client_->submit(request);
}

void TimedPaths::notified(Request& request, const IoNotice& notice) {
  Path& path = *request.path;
  PathFence::Hold* hold = request.hold;
  uint64_t bytes = request.data ? request.data->size() : 0;
  if (notice.state == RegionState::Timeout) {
    if (!hold) return;  // Cancelled comes next
    path.stale.fetch_add(1, std::memory_order_relaxed);
    path.stale_bytes.fetch_add(bytes, std::memory_order_relaxed);
    request.fence->note_stale(*hold);
    std::exchange(request.bio, nullptr)->complete(kPathTimedOut);
    return;
  }
  Bio* bio = request.bio;
  auto fence = std::move(request.fence);
  int status = notice.state == RegionState::Ok      ? 0
               : notice.state == RegionState::Error ? notice.error
                                                    : int{kPathTimedOut};
  Sense sense = notice.sense;
  request.data = nullptr;
  ObjectPool<Request>::put(&request);
  if (hold) {
    if (!bio) {
      path.stale.fetch_sub(1, std::memory_order_relaxed);
      path.stale_bytes.fetch_sub(bytes, std::memory_order_relaxed);
    }
    fence->leave(*hold, bio ? PathFence::Was::InTime : PathFence::Was::Stale);
  }
  if (bio) bio->complete(status, sense);
}

}  // namespace dmfs
