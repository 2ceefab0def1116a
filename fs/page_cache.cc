// SPDX-License-Identifier: Apache-2.0
#include "fs/page_cache.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cassert>
#include <ctime>
#include <set>
#include <utility>

namespace dmfs {
namespace {

constexpr uint64_t kPage = 4096;

// A buffered write fills its pages in the cache and then sends them. When they are dropped between
// the two, a reader brings back what was there before. The kernel has no remedy, and it does not
// show in the requests; so for this long after a drop, the pages of a write are dropped again.
constexpr int64_t kUnsafeNs = 1'000'000'000;

// A page that is written in part may be locked until the reply.
bool may_lock(const PageCache::Change& change) {
  return change.way == PageCache::Way::Buffered && (change.offset | change.length) % kPage != 0;
}

}  // namespace

// Guarded by the mutex_ where nothing else is said.
class PageCache::Volume final : public IoQueue {
 public:
  Volume(PageCache& cache, uint32_t minor) : cache_(cache), minor(minor) {}
  void perform(Bio& bio) override;

 private:
  PageCache& cache_;

 public:
  const uint32_t minor;
  std::atomic<int> partial{0};  // own synchronisation: writers that may hold the lock of a page
  std::atomic<int64_t> dropped_at{INT64_MIN /
                                  2};  // own synchronisation: when another way changed it
  bool cached = false;                 // there may be pages
  bool ready = false;  // and those below and beside know of it: who opens next may keep them
  uint64_t opens = 0;
  uint64_t told = 0;  // the generation of the stack whose contents the pages are of
};

// What one acknowledgement waits for.
struct PageCache::Batch {
  std::atomic<size_t> left{0};
  std::chrono::steady_clock::time_point deadline;
  // guarded by the mutex_
  Then then;
  bool over = false;
  bool listed = false;
  std::list<std::shared_ptr<Batch>>::iterator place;
};

struct PageCache::Job : Bio {
  Job(PageCache& cache, const Range& range, std::shared_ptr<Batch> batch)
      : Bio([](Bio& bio) {
          std::unique_ptr<Job> job(static_cast<Job*>(&bio));
          job->cache.job_ended(*job);
        }),
        cache(cache),
        range(range),
        batch(std::move(batch)) {}
  PageCache& cache;
  const Range range;
  const std::shared_ptr<Batch> batch;
};

void PageCache::Volume::perform(Bio& bio) {
  const Range range = static_cast<Job&>(bio).range;
  uint64_t opens_before = 0;
  bool all = range.length == 0;
  bool is_open = cache_.volumes_.find(minor) != nullptr;
  {
    MutexLock lock(cache_.mutex_);
    opens_before = opens;
  }
  if (!range.own) dropped_at.store(now());
  if (!is_open) {
    // Nobody can bring anything back; so after this there is nothing to tell until the next open.
    all = true;
  }
  cache_.drop_(inode_of(minor), all ? 0 : range.at, all ? 0 : range.length);
  if (!range.own) dropped_at.store(now());
  if (!is_open) {
    MutexLock lock(cache_.mutex_);
    if (opens == opens_before && !cache_.volumes_.find(minor)) cached = ready = false;
  }
  bio.complete(0);
}

PageCache::PageCache(DeviceManager& manager, VolumeTable& volumes, Drop drop)
    : manager_(manager),
      volumes_(volumes),
      drop_(std::move(drop)),
      ends_early_([this] { end_early(); }) {}

PageCache::~PageCache() {
  close();
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  ends_early_.join();
  std::vector<Volume*> volumes;
  {
    MutexLock lock(mutex_);
    for (auto& [minor, volume] : known_) volumes.push_back(volume.get());
  }
  // Nothing is pending, but a thread of the pool may still be leaving a queue.
  for (Volume* volume : volumes) threads_.drain(*volume);
}

int64_t PageCache::now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

PageCache::Stack PageCache::stack_of(uint32_t minor) const {
  std::set<uint32_t> seen{minor};
  std::vector<uint32_t> todo{minor};
  Stack stack;
  while (!todo.empty()) {
    std::shared_ptr<MappedDevice> device = manager_.find(todo.back());
    todo.pop_back();
    if (!device) continue;
    stack.generation = std::max(stack.generation, device->generation());
    std::shared_ptr<const Table> table = device->live_table();
    if (!table) continue;
    for (const BackingFile* file : table->devices()) {
      if (file->volume_minor() < 0) continue;
      auto below = static_cast<uint32_t>(file->volume_minor());
      if (seen.insert(below).second) todo.push_back(below);
    }
  }
  stack.minors.assign(seen.begin(), seen.end());
  return stack;
}

std::vector<std::pair<PageCache::Volume*, uint64_t>> PageCache::refresh() {
  std::vector<Volume*> volumes;
  {
    MutexLock lock(mutex_);
    for (auto& [minor, volume] : known_) {
      if (volume->cached) volumes.push_back(volume.get());
    }
  }
  std::vector<Stack> stacks;
  std::map<uint32_t, std::vector<Volume*>> users;  // of each volume, itself included
  for (Volume* volume : volumes) {
    stacks.push_back(stack_of(volume->minor));
    for (uint32_t minor : stacks.back().minors) users[minor].push_back(volume);
  }
  // A change to a volume reaches those below bit by bit (changed_from_above); who else has a part
  // in any of these is told as a whole.
  Related related;
  for (size_t i = 0; i < volumes.size(); ++i) {
    const std::vector<uint32_t>& below = stacks[i].minors;
    std::set<Volume*> others;
    for (uint32_t minor : below) {
      for (Volume* user : users[minor]) {
        if (!std::binary_search(below.begin(), below.end(), user->minor)) others.insert(user);
      }
    }
    if (!others.empty()) related[volumes[i]->minor].assign(others.begin(), others.end());
  }
  std::vector<std::pair<Volume*, uint64_t>> outdated;
  MutexLock lock(mutex_);
  any_related_.store(!related.empty());
  related_ = std::move(related);
  for (size_t i = 0; i < volumes.size(); ++i) {
    if (volumes[i]->told != stacks[i].generation) {
      outdated.emplace_back(volumes[i], stacks[i].generation);
    }
  }
  return outdated;
}

bool PageCache::opened(uint32_t minor) {
  {
    MutexLock lock(mutex_);
    std::unique_ptr<Volume>& volume = known_[minor];
    if (!volume) volume = std::make_unique<Volume>(*this, minor);
    ++volume->opens;
    if (volume->cached && volume->ready) return true;
  }
  MutexLock refreshing(refresh_mutex_);
  Stack stack = stack_of(minor);
  {
    MutexLock lock(mutex_);
    Volume& volume = *known_.at(minor);
    if (volume.cached && volume.ready) return true;
    volume.cached = true;
    volume.told = stack.generation;
  }
  // Whoever has changed since is told after the command that has changed it.
  (void)refresh();
  MutexLock lock(mutex_);
  known_.at(minor)->ready = true;
  return false;
}

PageCache::Volume* PageCache::cached(uint32_t minor) {
  MutexLock lock(mutex_);
  auto found = known_.find(minor);
  return found != known_.end() && found->second->cached ? found->second.get() : nullptr;
}

void PageCache::arrived(Change& change) {
  change.since = now();
  {
    MutexLock lock(mutex_);
    change.volume = known_.at(change.minor).get();
  }
  if (may_lock(change)) change.volume->partial.fetch_add(1);
}

void PageCache::replied(const Change& change) {
  if (may_lock(change)) change.volume->partial.fetch_sub(1);
}

void PageCache::changed(const Change& change, Then then) {
  std::vector<Range> ranges;
  Volume* volume = change.volume;
  if (any_related_.load()) {
    MutexLock lock(mutex_);
    if (auto found = related_.find(change.minor); found != related_.end()) {
      for (Volume* other : found->second) {
        if (other->cached) ranges.push_back({other});
      }
    }
  }
  // A suspended one may hold reads, and all of it is dropped when it resumes.
  std::erase_if(ranges, [this](const Range& range) {
    std::shared_ptr<MappedDevice> device = manager_.find(range.volume->minor);
    return !device || device->defers();
  });
  Range own{volume, static_cast<int64_t>(change.offset), static_cast<int64_t>(change.length), true};
  bool unsafe = change.way == Way::Buffered && volume->dropped_at.load() > change.since - kUnsafeNs;
  if (change.length == 0) unsafe = false;
  if (change.way == Way::Direct && change.length > 0) {
    own.own = false;
    ranges.push_back(own);
  } else if (unsafe && !may_lock(change)) {
    ranges.push_back(own);
  } else if (unsafe) {
    then = [this, own, then = std::move(then)] {
      then();
      (void)start({own}, {}, false);
    };
  }
  if (ranges.empty()) return then();
  (void)start(ranges, std::move(then), true);
}

void PageCache::changed_from_above(uint32_t minor, Sectors begin, Sectors count, Then then) {
  Volume* volume = cached(minor);
  if (!volume || count.n == 0) return then();
  (void)start({{volume, static_cast<int64_t>(begin.bytes()), static_cast<int64_t>(count.bytes())}},
              std::move(then), true);
}

void PageCache::after_command(CancelToken& cancel) {
  std::vector<std::pair<Volume*, uint64_t>> outdated;
  {
    MutexLock refreshing(refresh_mutex_);
    outdated = refresh();
  }
  if (outdated.empty()) return;
  std::vector<Range> ranges;
  for (const auto& [volume, generation] : outdated) ranges.push_back({volume});
  std::shared_ptr<Batch> batch = start(ranges, {}, false);
  {
    CancelToken::Waker waker(cancel, [this] {
      MutexLock lock(mutex_);
      changed_.notify_all();
    });
    auto deadline = std::chrono::steady_clock::now() + kMaxCommandDelay;
    MutexLock lock(mutex_);
    while (!batch->over && !cancel.cancelled() && !closed_.load()) {
      if (!changed_.wait_until(mutex_, deadline)) break;
    }
    if (!batch->over && !closed_.load()) {
      spdlog::warn("a command ends before the kernel has dropped all cached pages: reads are held");
    }
  }
  MutexLock lock(mutex_);
  for (const auto& [volume, generation] : outdated) {
    volume->told = std::max(volume->told, generation);
  }
}

std::shared_ptr<PageCache::Batch> PageCache::start(const std::vector<Range>& ranges, Then then,
                                                   bool limited) {
  auto batch = std::make_shared<Batch>();
  batch->left.store(ranges.size());
  bool closed;
  {
    MutexLock lock(mutex_);
    closed = closed_.load();
    batch->over = closed;
    if (!closed) {
      pending_.fetch_add(ranges.size());
      batch->then = std::move(then);
      if (limited) {
        bool knot = std::any_of(ranges.begin(), ranges.end(),
                                [](const Range& r) { return r.volume->partial.load() > 0; });
        batch->deadline = std::chrono::steady_clock::now();
        batch->deadline += knot ? std::chrono::milliseconds(kKnotDelay) : kMaxDelay;
        auto place = waiting_.end();
        while (place != waiting_.begin() && (*std::prev(place))->deadline > batch->deadline)
          --place;
        batch->place = waiting_.insert(place, batch);
        batch->listed = true;
        bool other_first = waiting_.size() > 1 && batch->place == waiting_.begin();
        if (std::exchange(sleeps_, false) || knot || other_first) changed_.notify_all();
      }
    }
  }
  if (closed) {
    if (then) then();
    return batch;
  }
  for (const Range& range : ranges) {
    // It gives itself back when it ends.
    Job* job = std::make_unique<Job>(*this, range, batch).release();
    threads_.submit(*range.volume, *job);
  }
  return batch;
}

// The batch is over; false: it was before.
bool PageCache::take(Batch& batch, Then& then) {
  if (batch.over) return false;
  batch.over = true;
  then = std::move(batch.then);
  if (std::exchange(batch.listed, false)) {
    waiting_.erase(batch.place);
  } else {
    changed_.notify_all();  // a command waits
  }
  return true;
}

void PageCache::job_ended(Job& job) {
  if (job.batch->left.fetch_sub(1) == 1) {
    Then then;
    {
      MutexLock lock(mutex_);
      (void)take(*job.batch, then);
    }
    if (then) then();
  }
  pending_.fetch_sub(1);
}

// The thread that lets go of whoever has waited too long.
void PageCache::end_early() {
  while (true) {
    Then then;
    {
      MutexLock lock(mutex_);
      if (stopping_) return;
      if (waiting_.empty()) {
        sleeps_ = true;
        changed_.wait(mutex_);
        sleeps_ = false;
        continue;
      }
      std::shared_ptr<Batch> first = waiting_.front();
      if (std::chrono::steady_clock::now() < first->deadline) {
        changed_.wait_until(mutex_, first->deadline);
        continue;
      }
      (void)take(*first, then);
    }
    spdlog::debug("a write is acknowledged before the kernel has dropped all cached pages");
    if (then) then();
  }
}

void PageCache::close() {
  std::vector<Then> thens;
  {
    MutexLock lock(mutex_);
    closed_.store(true);
    while (!waiting_.empty()) {
      std::shared_ptr<Batch> first = waiting_.front();
      (void)take(*first, thens.emplace_back());
    }
    changed_.notify_all();
  }
  for (Then& then : thens) then();
}

}  // namespace dmfs
