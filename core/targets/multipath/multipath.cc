// SPDX-License-Identifier: Apache-2.0
// The way of a bio through multipath.
#include "core/targets/multipath/multipath.h"

namespace dmfs {
namespace {

constexpr std::chrono::milliseconds kRepeatAfter{250};
constexpr std::chrono::milliseconds kDefaultActivationDelay{2000};

}  // namespace

Multipath::Multipath(TargetContext& context, MultipathFeatures features)
    : context_(context),
      features_(features),
      queue_if_no_path_(features.queue_if_no_path),
      queued_(context.held_budget()),
      repeated_(context.held_budget()),
      alarm_(context.clock(), [this] { due(); }) {}

Multipath::~Multipath() {
  {
    MutexLock lock(mutex_);
    closing_ = true;
    while (working_) idle_.wait(mutex_);
  }
  checker_.reset();
  handler_.reset();  // may still call until it is gone
  timed_.reset();
}

// ---- a bio's way down ---------------------------------------------------------------------------

MapResult Multipath::map(Bio& bio) {
  if (Group* group = ready_.load(std::memory_order_acquire)) {
    int path = group->selector->select(bio.bytes());
    if (path != PathSelector::kNone) {
      aim(bio, *group->paths[static_cast<size_t>(path)]);
      return MapResult::Remapped;
    }
  }
  return map_slowly(bio);
}

MapResult Multipath::map_slowly(Bio& bio) {
  int refused;
  bool tell = false;
  {
    MutexLock lock(mutex_);
    Path* path = path_for(bio);
    if (path && !must_wait()) {
      aim(bio, *path);
      return MapResult::Remapped;
    }
    // presuspend() may have been here already.
    bool noflush = context_.noflush_suspending();
    if (!path && !queue_if_no_path_) return noflush ? MapResult::Requeue : MapResult::Kill;
    if (noflush && !bio.cancelled()) return MapResult::Requeue;
    refused = queued_.keep(bio, tell);
    if (!refused && (!path || !begin_work())) return MapResult::Submitted;
  }
  if (tell) context_.raise_event();  // while the bio still keeps this table in use
  if (refused) {
    bio.complete(refused);
  } else {
    run_work();  // the group is to be made ready
  }
  return MapResult::Submitted;
}

void Multipath::aim(Bio& bio, Path& path) {
  bio.mark = (bio.mark & ~kPathMask) | path.number_in_table;
  Group& group = path.home;
  uint32_t others = path.in_flight.fetch_add(1, std::memory_order_relaxed);
  if (path.counts) group.selector->start_io(path.index, bio.bytes());
  bool timed = group.type->timed || others == 0;  // what goes alone is enough of a sample
  bio.note = timed ? context_.clock().now().time_since_epoch().count() : 0;
  bio.remap(*path.way, bio.op == Op::Flush ? Sectors{0} : context_.offset(bio));
}

// Back to where map() got it.
void Multipath::unaim(Bio& bio) const {
  bio.mark &= ~kPathMask;
  bio.sector = bio.op == Op::Flush ? context_.begin() : context_.begin() + bio.sector;
}

// ---- and up again -------------------------------------------------------------------------------

EndIo Multipath::end_io(Bio& bio, int& error) {
  uint32_t number = bio.mark & kPathMask;
  if (number == 0) return EndIo::Done;  // completed here
  Path& path = *paths_[number - 1];
  leave_path(path, bio, error == 0);
  if (error < 0) return timed_end(bio, path, error);
  // What nobody waits for says nothing about the path, nor does what no path could do.
  if (error == 0 || bio.cancelled() || error == EOPNOTSUPP) return EndIo::Done;
  if (handler_) {
    ask_handler(bio, path, error);
    return EndIo::Incomplete;
  }
  return go_on(bio, path, default_error(error, bio.sense), error);
}

EndIo Multipath::go_on(Bio& bio, Path& path, unsigned flags, int& error) {
  bool work = false;
  switch (settle(bio, path, flags, error, work)) {
    case Fate::Done:
      return EndIo::Done;
    case Fate::Requeue:
      return EndIo::Requeue;
    case Fate::Kept:
      break;
  }
  if (work) run_work();
  return EndIo::Incomplete;
}

// What a TimedPaths says of a bio that its file has not ended.
EndIo Multipath::timed_end(Bio& bio, Path& path, int& error) {
  TimedStatus status{error};
  error = ETIMEDOUT;
  if (int cancelled = bio.cancelled()) {
    error = cancelled;
    return EndIo::Done;
  }
  switch (status) {
    case kPathTimedOut:
      // No handler is asked: there is no answer to decode.
      return go_on(bio, path, kHwFailPath, error);
    case kPathLeft:
      return go_on(bio, path, kMoveOn, error);
    case kPathPushedBack:
      unaim(bio);
      return EndIo::Requeue;
    case kPathNoMemory:
      break;
  }
  error = ENOMEM;
  return EndIo::Done;
}

void Multipath::abandon(Bio& bio) {
  Path& path = *paths_[(bio.mark & kPathMask) - 1];
  leave_path(path, bio, false);
  unaim(bio);
}

void Multipath::leave_path(Path& path, const Bio& bio, bool well) {
  Group& group = path.home;
  path.in_flight.fetch_sub(1, std::memory_order_relaxed);
  if (path.counts) {
    Clock::Time started{Clock::Duration(group.type->timed ? bio.note : 0)};
    group.selector->end_io(path.index, bio.bytes(), started);
  }
  if (!well || bio.note == 0) return;
  int64_t took = context_.clock().now().time_since_epoch().count() - bio.note;
  int64_t average = path.latency_ns.load(std::memory_order_relaxed);
  // Two at a time lose one of them.
  path.latency_ns.store(average == 0 ? took : average + (took - average) / 8, std::memory_order_relaxed);
}

Multipath::Fate Multipath::settle(Bio& bio, Path& path, unsigned flags, int& error, bool& work) {
  if (!(flags & kMoveOn)) path.errors.fetch_add(1, std::memory_order_relaxed);
  unaim(bio);
  uint32_t repeats = bio.mark >> 24;
  bool repeat = !(flags & (kHwFailPath | kHwBypassGroup | kHwErrorIo | kMoveOn));
  if (repeat && ++repeats > kMaxRepeats) {
    repeat = false;
    flags |= kHwFailPath;
  }
  // The bio is what keeps this table in use, so the event comes before the bio is let go.
  bool event = false;
  {
    MutexLock lock(mutex_);
    if (flags & kHwFailPath) event = fail_path(path);
    if (flags & kHwBypassGroup) {
      path.home.bypassed = true;
      leave_group();
      event = true;
    }
  }
  if (event) context_.raise_event();
  if (flags & kHwErrorIo) return Fate::Done;

  MutexLock lock(mutex_);
  if (int cancelled = bio.cancelled()) {
    error = cancelled;
    return Fate::Done;
  }
  bool noflush = context_.noflush_suspending();
  if (valid_paths_ == 0 && (noflush || !queue_if_no_path_)) {
    error = EIO;
    return noflush ? Fate::Requeue : Fate::Done;
  }
  if (repeat && noflush) return Fate::Requeue;
  if (repeat) {
    bio.mark = repeats << 24;
    if (!repeat_at_) repeat_at_ = context_.clock().now() + kRepeatAfter;
    alarm_.set(*repeat_at_);
    repeated_.force(bio);
    return Fate::Kept;
  }
  queued_.force(bio);
  work = begin_work();
  return Fate::Kept;
}

void Multipath::ask_handler(Bio& bio, Path& path, int error) {
  HwError what{bio.op, bio.sector, bio.count, error, bio.sense};
  uint64_t question;
  {
    MutexLock lock(mutex_);
    question = ++last_question_;
    stamp_held(bio);
    bio.status = error;
    asked_.emplace(question, &bio);
  }
  // The answer may come before this returns, and with it the end of the bio.
  handler_->error(path, what,
                  [this, question, &path](unsigned flags) { decided(question, path, flags); });
}

void Multipath::decided(uint64_t question, Path& path, unsigned flags) {
  Bio* bio;
  {
    MutexLock lock(mutex_);
    auto at = asked_.find(question);
    if (at == asked_.end()) return;  // cancelled meanwhile
    bio = at->second;
    asked_.erase(at);
  }
  bool work = false;
  int error = bio->status;
  switch (settle(*bio, path, flags, error, work)) {
    case Fate::Done:
      return bio->complete(error, bio->sense);
    case Fate::Requeue:
      return bio->complete(kRequeue);
    case Fate::Kept:
      break;
  }
  if (work) run_work();
}

// ---- choosing ------------------------------------------------------------------------------------

Multipath::Path* Multipath::path_for(const Bio& bio) {
  if (queue_io_ && current_path_) return current_path_;
  return choose(bio.bytes());
}

Multipath::Path* Multipath::choose(uint64_t bytes) {
  if (valid_paths_ == 0) {
    queue_io_ = false;
    leave_group();
    return nullptr;
  }
  if (Group* next = std::exchange(next_, nullptr)) {
    if (Path* path = choose_in(*next, bytes)) return path;
  }
  if (current_) {
    if (Path* path = choose_in(*current_, bytes)) return path;
  }
  // Groups that are bypassed are for when no other has paths.
  for (bool bypassed : {false, true}) {
    for (const auto& group : groups_) {
      if (group->bypassed != bypassed) continue;
      Path* path = choose_in(*group, bytes);
      if (!path) continue;
      if (bypassed) pg_init_delay_ = true;  // lest two groups that bypass each other hammer the array
      return path;
    }
  }
  leave_group();
  return nullptr;
}

Multipath::Path* Multipath::choose_in(Group& group, uint64_t bytes) {
  int chosen = group.selector->select(bytes);
  if (chosen == PathSelector::kNone) return nullptr;
  current_path_ = group.paths[static_cast<size_t>(chosen)];
  if (current_ != &group) {
    current_ = &group;
    queue_io_ = pg_init_required_ = handler_ != nullptr;
    pg_init_count_ = 0;
    pg_init_delay_ = false;
    activate_at_.reset();
  }
  note_ready();
  return current_path_;
}

void Multipath::leave_group() {
  current_ = nullptr;
  current_path_ = nullptr;
  note_ready();
}

void Multipath::note_ready() {
  ready_.store(next_ || must_wait() ? nullptr : current_, std::memory_order_release);
}

// ---- paths that fail and come back --------------------------------------------------------------

bool Multipath::fail_path(Path& path) {
  if (!path.works) return false;
  path.home.selector->fail_path(path.index);
  path.works = false;
  ++path.fail_count;
  if (checker_) checker_->failed(path.number_in_table - 1);
  --valid_paths_;
  if (current_path_ == &path) current_path_ = nullptr;
  watch_no_path();
  return true;
}

bool Multipath::reinstate_path(Path& path) {
  if (path.works) return false;
  path.home.selector->reinstate_path(path.index);
  path.works = true;
  if (++valid_paths_ == 1) current_path_ = nullptr;
  no_path_at_.reset();
  if (timed_out_) set_queueing(true, false);
  return true;
}

void Multipath::watch_no_path() {
  if (!features_.no_path_timeout_s || valid_paths_ > 0 || !queue_if_no_path_ || no_path_at_) return;
  no_path_at_ = context_.clock().now() + std::chrono::seconds(*features_.no_path_timeout_s);
  alarm_.set(*no_path_at_);
}

void Multipath::set_queueing(bool on, bool save) {
  if (save) {
    if (queue_if_no_path_ || !saved_queueing_) saved_queueing_ = queue_if_no_path_;
  } else if (!on) {
    saved_queueing_ = false;
  }
  queue_if_no_path_ = on;
  if (!save) timed_out_ = false;
  if (on) {
    watch_no_path();
  } else {
    no_path_at_.reset();
  }
}

// ---- what waits -----------------------------------------------------------------------------------

bool Multipath::begin_work() {
  if (working_ || closing_) return false;
  working_ = true;
  return true;
}

void Multipath::work_now() {
  {
    MutexLock lock(mutex_);
    if (!begin_work()) return;
  }
  run_work();
}

void Multipath::run_work() {
  while (true) {
    BioList send, requeue, fail;
    Path* activate;
    bool bypassed = false;
    {
      MutexLock lock(mutex_);
      take_work(send, requeue, fail);
      activate = take_activation();
      if (activate) bypassed = activate->home.bypassed;
      if (!activate && send.empty() && requeue.empty() && fail.empty()) {
        working_ = false;
        idle_.notify_all();
        return;
      }
    }
    (void)requeue.complete_all(kRequeue);
    (void)fail.complete_all(EIO);
    while (Bio* bio = send.pop_front()) bio->dev->submit(*bio);
    if (activate) handler_->pg_init(bypassed, *activate);
  }
}

void Multipath::take_work(BioList& send, BioList& requeue, BioList& fail) {
  bool noflush = context_.noflush_suspending();
  while (const Bio* first = queued_.front()) {
    Path* path = path_for(*first);
    if (!noflush && path && must_wait()) return;
    if (!noflush && !path && queue_if_no_path_) return;
    Bio* bio = queued_.pop_front();
    if (path && !must_wait()) {
      bio->held_since = 0;
      aim(*bio, *path);
      send.push_back(*bio);
    } else {
      (noflush ? requeue : fail).push_back(*bio);
    }
  }
}

// ---- activation -----------------------------------------------------------------------------------

// The path whose pg_init has to be started now.
Multipath::Path* Multipath::take_activation() {
  if (!pg_init_required_ || activating_ || !current_path_ || queued_.empty()) return nullptr;
  if (pg_init_delay_) {
    Clock::Time now = context_.clock().now();
    if (!activate_at_) {
      activate_at_ = now + (features_.pg_init_delay_ms
                                ? std::chrono::milliseconds(*features_.pg_init_delay_ms)
                                : kDefaultActivationDelay);
    }
    if (now < *activate_at_) {
      alarm_.set(*activate_at_);
      return nullptr;
    }
  }
  activate_at_.reset();
  pg_init_delay_ = false;
  pg_init_required_ = false;
  ++pg_init_count_;
  return activating_ = current_path_;
}

void Multipath::pg_init_complete(HwPath& which, unsigned flags) {
  BioList waiting;
  bool event = false, noflush = false;
  {
    MutexLock lock(mutex_);
    if (!activating_ || static_cast<HwPath*>(activating_) != &which) return;
    Path& path = *std::exchange(activating_, nullptr);
    Group& group = path.home;
    // A group that is bypassed already insists on failing the path.
    if (flags && group.bypassed) flags |= kHwFailPath;
    if ((flags & kHwRetry) && current_ == &group) {
      if (pg_init_count_ <= features_.pg_init_retries) {
        pg_init_required_ = pg_init_delay_ = true;
      } else {
        flags |= kHwFailPath;
      }
    }
    if (flags & kHwFailPath) event = fail_path(path);
    if (flags & kHwBypassGroup) event = group.bypassed = true;
    if (flags & ~unsigned{kHwRetry}) {
      if (current_ == &group) {
        pg_init_required_ = false;
        leave_group();
      }
      if (flags & kHwErrorIo) {
        waiting = queued_.take_all();
        noflush = context_.noflush_suspending();
      }
    } else if (!(flags & kHwRetry) && !pg_init_required_) {
      queue_io_ = false;
      group.bypassed = false;
      note_ready();
    }
  }
  // What waits keeps the table in use, and the handler does, whose thread this is.
  if (event) context_.raise_event();
  (void)waiting.complete_all(noflush ? kRequeue : EIO);
  work_now();
}

void Multipath::due() {
  bool event = false;
  {
    MutexLock lock(mutex_);
    Clock::Time now = context_.clock().now();
    if (no_path_at_ && *no_path_at_ <= now) {
      bool queueing = queue_if_no_path_;
      set_queueing(false, false);
      timed_out_ = event = queueing;
    }
    if (repeat_at_ && *repeat_at_ <= now) {
      repeat_at_.reset();
      queued_.splice_front(repeated_);
    }
    if (fail_back_at_ && *fail_back_at_ <= now) {
      fail_back_at_.reset();
      if (!suspended_) event |= switch_back();
    }
    for (const auto& at : {no_path_at_, repeat_at_, activate_at_, fail_back_at_}) {
      if (at && *at > now) alarm_.set(*at);
    }
  }
  if (event) context_.raise_event();
  work_now();
}

// ---- suspend, cancel, and what is held ---------------------------------------------------------

void Multipath::presuspend() {
  BioList back;
  {
    MutexLock lock(mutex_);
    bool noflush = context_.noflush_suspending();
    // With flush everything has to end; without, the kernel's bio-based one does the same.
    if (!noflush || features_.queue_mode == QueueMode::Bio) set_queueing(false, true);
    no_path_at_.reset();
    repeat_at_.reset();
    queued_.splice_front(repeated_);
    if (noflush) back = queued_.take_all();
  }
  // Behind a change that a path still has, which may take for ever.
  if (timed_ && context_.noflush_suspending()) {
    BioList fenced = timed_->fence().take_all();
    while (Bio* bio = fenced.pop_front()) {
      abandon(*bio);
      back.push_back(*bio);
    }
  }
  (void)back.complete_all(kRequeue);
  work_now();
}

void Multipath::postsuspend() {
  if (checker_) checker_->stop();
  MutexLock lock(mutex_);
  suspended_ = true;
}

void Multipath::resume() {
  {
    MutexLock lock(mutex_);
    suspended_ = false;
    if (std::exchange(saved_queueing_, false)) queue_if_no_path_ = true;
    watch_no_path();
  }
  if (checker_) checker_->start();
  work_now();
}

size_t Multipath::cancel(const BioCancel& cancel) {
  BioList taken;
  {
    MutexLock lock(mutex_);
    for (KeptBios* list : {&queued_, &repeated_}) {
      BioList wanted = list->take(cancel);
      while (Bio* bio = wanted.pop_front()) taken.push_back(*bio);
    }
    for (auto at = asked_.begin(); at != asked_.end();) {
      if (!cancel.wants(*at->second)) {
        ++at;
        continue;
      }
      unaim(*at->second);
      taken.push_back(*at->second);
      at = asked_.erase(at);
    }
  }
  if (timed_) {
    BioList fenced = timed_->fence().take(cancel);
    while (Bio* bio = fenced.pop_front()) {
      abandon(*bio);
      taken.push_back(*bio);
    }
  }
  return taken.complete_all(cancel.error);
}

bool Multipath::inherits(const std::shared_ptr<Heirloom>& heirloom) {
  auto fence = std::dynamic_pointer_cast<PathFence>(heirloom);
  if (!fence) return false;
  if (!timed_) {
    unminded_.push_back(std::move(fence));  // stays with the table, too
    return false;
  }
  timed_->fence().inherit(*fence);
  return true;
}

Status Multipath::preresume() {
  for (const auto& fence : unminded_) {
    if (fence->empty()) continue;
    return Error{EBUSY, "multipath: a path still has an overdue write of the table before, which only a "
                        "table with path_timeout minds"};
  }
  unminded_.clear();
  return {};
}

void Multipath::list_held(HeldList& list) const {
  if (timed_) timed_->fence().list_held(list, context_.begin());
  MutexLock lock(mutex_);
  for (const KeptBios* bios : {&queued_, &repeated_}) list.add_all("multipath", bios->list());
  for (const auto& [question, bio] : asked_) {
    list.add("multipath", *bio,
             bio->op == Op::Flush ? context_.begin() : context_.begin() + bio->sector);
  }
}

std::string Multipath::freed_by() const {
  if (timed_ && timed_->fence().waiting() > 0) {
    return "goes when a path has ended an overdue write of the same place";
  }
  MutexLock lock(mutex_);
  if (activating_) return "goes when the hardware handler has activated " + activating_->name();
  if (valid_paths_ > 0) return "goes by itself";
  return "message 'reinstate_path <path>' or 'fail_if_no_path'";
}

}  // namespace dmfs
