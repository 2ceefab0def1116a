// SPDX-License-Identifier: Apache-2.0
#include "core/targets/multipath/path_checker.h"

#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "core/base/errno_names.h"

namespace dmfs {
namespace {

constexpr Sectors kBlock{8};  // of a path in the reserved area

}  // namespace

Result<std::unique_ptr<PathChecker>> PathChecker::create(Host& host, Clock& clock,
                                                         const Options& options,
                                                         const std::vector<BackingFile*>& paths) {
  std::unique_ptr<PathChecker> checker(new PathChecker(host, clock, options));
  DM_TRY(checker->client_, IoClient::create(clock, {.min_ios = 4, .max_size = kBytes}));
  for (BackingFile* file : paths) {
    auto check = std::make_unique<Check>();
    check->checker = checker.get();
    check->index = static_cast<unsigned>(checker->checks_.size());
    check->file = file;
    checker->checks_.push_back(std::move(check));
  }
  return checker;
}

PathChecker::PathChecker(Host& host, Clock& clock, const Options& options)
    : host_(host), clock_(clock), options_(options), alarm_(clock, [this] { due(); }) {}

PathChecker::~PathChecker() {
  stop();
  client_.reset();
}

void PathChecker::start() {
  MutexLock lock(mutex_);
  on_ = true;
  ++round_;
  next_ = clock_.now() + options_.interval;
  alarm_.set(next_);
}

void PathChecker::stop() {
  MutexLock lock(mutex_);
  on_ = false;
}

void PathChecker::due() {
  std::vector<Check*> now;
  {
    MutexLock lock(mutex_);
    if (!on_) return;
    if (clock_.now() >= next_) {
      next_ = clock_.now() + options_.interval;
      for (const auto& check : checks_) {
        if (check->step != Step::Idle) continue;  // as overdue as it was
        check->step = options_.area ? Step::Writing : Step::Reading;
        check->round = round_;
        now.push_back(check.get());
      }
    }
    alarm_.set(next_);
  }
  for (Check* check : now) begin(*check);
}

void PathChecker::begin(Check& check) {
  if (!options_.area) return submit(check, Op::Read);
  std::string text = fmt::format("dmfs path check {} {}\n", check.index + 1,
                                 clock_.now().time_since_epoch().count());
  std::memcpy(check.written.data(), text.data(), text.size());
  check.memory = check.written;
  submit(check, Op::Write);
}

void PathChecker::submit(Check& check, Op op) {
  Sectors at = options_.area ? *options_.area + Sectors{kBlock.n * check.index} : Sectors{};
  Sectors count = options_.area ? kBlock : Sectors{1};
  check.region = IoRegion(*check.file, at, count);
  check.request.op = op;
  check.request.memory = IoMemory::contiguous(check.memory.data(), static_cast<size_t>(count.bytes()));
  check.request.regions = {&check.region, 1};
  check.request.notify = &check;
  check.request.timeout = options_.timeout;
  // The path is told to be overdue at once, and asked again when it has ended this.
  check.request.cancel_on_timeout = true;
  check.request.cancellable = false;
  client_->submit(check.request);
}

void PathChecker::ended(Check& check, const IoNotice& notice) {
  if (!notice.last) {  // overdue
    {
      MutexLock lock(mutex_);
      check.overdue = true;
    }
    return say(check, ETIMEDOUT);
  }
  bool overdue;
  Step step;
  {
    MutexLock lock(mutex_);
    overdue = std::exchange(check.overdue, false);
    step = check.step;
    if (overdue) check.step = Step::Idle;
    else if (step == Step::Writing && notice.error == 0) check.step = Step::Reading;
  }
  if (overdue) return;
  if (notice.error == 0 && step == Step::Writing) {
    check.memory.fill(std::byte{0});
    return submit(check, Op::Read);
  }
  bool wrong = notice.error == 0 && options_.area && check.memory != check.written;
  say(check, wrong ? EILSEQ : notice.error);
  MutexLock lock(mutex_);
  check.step = Step::Idle;
}

void PathChecker::say(Check& check, int error) {
  bool fit = error == 0;
  {
    MutexLock lock(mutex_);
    if (!on_ || check.round != round_) return;
    Clock::Time now = clock_.now();
    if (error) {
      check.good_since.reset();
      const char* name = strerrorname_np(error);
      check.state = error == ETIMEDOUT ? "down: timeout" : fmt::format("down: {}", name ? name : "?");
    } else {
      if (!check.good_since) check.good_since = now;
      if (check.marginal && now - *check.good_since >= options_.marginal->good) {
        check.marginal = false;
        check.failures.clear();
      }
      fit = !check.marginal;
      check.state = fit ? "up" : "marginal";
    }
  }
  host_.checked(check.index, fit, error == 0);
}

void PathChecker::failed(unsigned path) {
  if (!options_.marginal) return;
  MutexLock lock(mutex_);
  Check& check = *checks_[path];
  Clock::Time now = clock_.now();
  check.failures.push_back(now);
  if (check.failures.size() > options_.marginal->errors) check.failures.pop_front();
  check.good_since.reset();
  if (check.failures.size() == options_.marginal->errors &&
      now - check.failures.front() <= options_.marginal->window) {
    check.marginal = true;
  }
}

std::string PathChecker::state(unsigned path) const {
  MutexLock lock(mutex_);
  return checks_[path]->state;
}

}  // namespace dmfs
