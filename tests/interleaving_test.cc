// SPDX-License-Identifier: Apache-2.0
// Every order in which two bios can be submitted, mapped and ended while a suspend tells the
// targets, blocks, drains, is interrupted, and a resume follows. Nothing is left to chance: a bio
// stands still inside map() until its turn has come, and after each step the test waits until all
// that follows from it has happened. A small model says what each bio must come to.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <optional>
#include <thread>

#include "tests/support/harness.h"

namespace dmfs::test {
namespace {

enum class Step : uint8_t { Submit, Map, End, Presuspend, Block, Interrupt, Resume };
struct Event {
  Step step;
  int bio = 0;
};
// What becomes of a bio inside.
enum class Fate { MapRequeue, MapKill, EndOk, EndError, EndRequeue, EndIncomplete };
constexpr bool ends_in_map(Fate fate) { return fate == Fate::MapRequeue || fate == Fate::MapKill; }

// A thread that does one thing after another.
class Hand {
 public:
  Hand() : thread_([this] { run(); }) {}
  ~Hand() {
    {
      MutexLock lock(mutex_);
      stop_ = true;
      wake_.notify_all();
    }
    thread_.join();
  }
  void start(std::function<void()> work) {
    MutexLock lock(mutex_);
    work_ = std::move(work);
    busy_.store(true);
    wake_.notify_all();
  }
  bool busy() const { return busy_.load(); }

 private:
  void run() {
    for (;;) {
      std::function<void()> work;
      {
        MutexLock lock(mutex_);
        while (!stop_ && !work_) wake_.wait(mutex_);
        if (!work_) return;
        work = std::exchange(work_, {});
      }
      work();
      busy_.store(false);
    }
  }
  std::atomic<bool> busy_{false};
  Mutex mutex_;
  CondVar wake_;
  std::function<void()> work_ DM_GUARDED_BY(mutex_);
  bool stop_ DM_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// What the test and its target share.
struct Stage {
  std::array<Fate, 2> fates{};
  // Of each bio (by its pid, 1 or 2): whether it stands in map(), and may go on. Cleared when all is let go.
  std::array<std::atomic<bool>, 2> in_map{}, may_map{};
  std::atomic<bool> free{false};  // what comes now is mapped and ended at once
  std::atomic<bool> in_presuspend{false}, may_block{false};
  std::array<bool, 2> again{};  // came a second time
};
Stage* stage = nullptr;

class StepTarget final : public Target {
 public:
  StepTarget(BackingFile& file) : file_(file) {}
  MapResult map(Bio& bio) override {
    bio.remap(file_, bio.sector);
    int which = bio.pid - 1;
    auto at = static_cast<size_t>(which);
    if (stage->free) {
      stage->again[at] = true;
      return MapResult::Remapped;
    }
    stage->in_map[at] = true;
    while (!stage->may_map[at]) std::this_thread::yield();
    if (stage->fates[at] == Fate::MapRequeue) return MapResult::Requeue;
    return stage->fates[at] == Fate::MapKill ? MapResult::Kill : MapResult::Remapped;
  }
  EndIo end_io(Bio& bio, int& error) override {
    auto at = static_cast<size_t>(bio.pid - 1);
    if (stage->again[at]) return EndIo::Done;
    switch (stage->fates[at]) {
      case Fate::EndRequeue:
        return EndIo::Requeue;
      case Fate::EndIncomplete:
        // Sent once more, and done.
        stage->again[at] = true;
        bio.complete(0);
        return EndIo::Incomplete;
      case Fate::EndError:
        error = ENOSPC;
        return EndIo::Done;
      default:
        return EndIo::Done;
    }
  }
  void presuspend() override {
    stage->in_presuspend = true;
    while (!stage->may_block) std::this_thread::yield();
  }
  std::string table_line() const override { return "a"; }
  IoLimits limits() const override { return {.num_flush_bios = 2}; }

 private:
  BackingFile& file_;
};

const TargetRegistry& registry() {
  static const TargetType type{"step", {1, 0, 0},
                               [](TargetContext& context, std::span<const std::string> words)
                                   -> Result<std::unique_ptr<Target>> {
                                 DM_TRY(auto file, context.open(words[0], {0}, context.length()));
                                 return std::unique_ptr<Target>(new StepTarget(*file));
                               }};
  static const TargetRegistry all = [] {
    TargetRegistry made;
    (void)made.add(type);
    return made;
  }();
  return all;
}

// One order, played on a device and on the model.
class Play {
 public:
  Play(std::array<Hand, 3>& hands, bool noflush) : hands_(hands), noflush_(noflush) {
    file_ = &opener_.add("a", 16);
    FakeClock& clock = clock_;
    Table::Options options{registry(), opener_, clock};
    options.noflush_suspending = [this] { return device_.noflush_suspending(); };
    TableSpec spec;
    spec.targets.push_back({{0}, {16}, "step", "a"});
    auto table = Table::build(spec, options);
    EXPECT_TRUE(table) << table.error().message;
    MutexLock lock(device_.command_mutex());
    (void)device_.set_inactive(std::move(*table));
    CancelToken never;
    std::shared_ptr<Table> replaced;
    EXPECT_TRUE(device_.resume({}, never, [] { return Status(); }, replaced));
    file_->hold(true);
  }
  ~Play() {
    std::vector<std::shared_ptr<Table>> tables;
    MutexLock lock(device_.command_mutex());
    tables = device_.retire();
  }

  void play(const Event& event) {
    auto at = static_cast<size_t>(event.bio);
    switch (event.step) {
      case Step::Submit:
        hands_[at].start([this, at] { device_.submit(*bios_[at]); });
        until([&] { return stage->in_map[at] || !hands_[at].busy(); });
        if (closed_) deferred_.push_back(event.bio);
        else if (free_) result_[at] = 0;
        else ++inside_;
        break;
      case Step::Map:
        if (!is_inside(event.bio)) break;
        stage->may_map[at] = true;
        until([&] { return !hands_[at].busy(); });
        if (stage_fate(at) == Fate::MapRequeue) requeued(event.bio);
        else if (stage_fate(at) == Fate::MapKill) ended(event.bio, EIO);
        else if (free_) ended_below(event.bio);  // nothing is held there any more
        break;
      case Step::End:
        if (!is_inside(event.bio)) break;
        end_in_file(event.bio);
        ended_below(event.bio);
        break;
      case Step::Presuspend:
        hands_[2].start([this] {
          MutexLock lock(device_.command_mutex());
          suspended_ = device_.suspend({.noflush = noflush_}, cancel_, [] { return Status(); });
        });
        until([&] { return bool(stage->in_presuspend); });
        flag_ = noflush_;
        break;
      case Step::Block:
        closed_ = blocked_ = true;
        // If it was interrupted before, the test of that comes with the block.
        if (interrupted_ && inside_ > 0) set_free();
        stage->may_block = true;
        until([&] { return device_.defers() || !hands_[2].busy(); });
        break;
      case Step::Interrupt:
        interrupted_ = true;
        if (blocked_ && closed_ && inside_ > 0) set_free();
        cancel_.cancel();
        break;
      case Step::Resume: {
        set_free();
        MutexLock lock(device_.command_mutex());
        CancelToken never;
        std::shared_ptr<Table> replaced;
        EXPECT_TRUE(device_.resume({}, never, [] { return Status(); }, replaced));
        reissue();
        break;
      }
    }
    settle();
  }
  // Whether the suspend has come to an end, so that a resume may follow.
  bool may_resume() const { return blocked_ && (inside_ == 0 || interrupted_); }
  bool is_inside(int bio) const {
    auto at = static_cast<size_t>(bio);
    return stage->in_map[at] && !result_[at] && !on(pushback_, bio) && !reissued_[at];
  }

  void compare() {
    EXPECT_EQ(device_.in_flight(), 0);
    EXPECT_EQ(device_.held_count(), 0u);
    EXPECT_FALSE(device_.suspended());
    EXPECT_FALSE(device_.noflush_suspending());
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_TRUE(bios_[i]->done()) << "bio " << i << " is stuck";
      ASSERT_TRUE(result_[i].has_value()) << "the model has lost bio " << i;
      EXPECT_EQ(bios_[i]->error(), *result_[i]) << "bio " << i;
    }
    EXPECT_EQ(suspended_.has_value() && bool(*suspended_), drained_);
    if (!drained_) {
      EXPECT_EQ(suspended_->error().code, EINTR);
    }
  }

 private:
  template <typename Condition>
  static void until(Condition condition) {
    while (!condition()) std::this_thread::yield();
  }
  static bool on(const std::vector<int>& list, int bio) {
    return std::find(list.begin(), list.end(), bio) != list.end();
  }
  Fate stage_fate(size_t at) const { return stage->fates[at]; }

  void end_in_file(int bio) {
    auto held = file_->held_bios();
    for (size_t i = 0; i < held.size(); ++i) {
      if (held[i]->pid == bio + 1) return void(file_->complete_at(i));
    }
    ADD_FAILURE() << "bio " << bio << " is not below";
  }
  void ended_below(int bio) {
    Fate fate = stage_fate(static_cast<size_t>(bio));
    if (fate == Fate::EndRequeue) requeued(bio);
    else ended(bio, fate == Fate::EndError ? ENOSPC : 0);
  }
  void ended(int bio, int error) {
    result_[static_cast<size_t>(bio)] = error;
    --inside_;
  }
  void requeued(int bio) {
    // The flag is there from before presuspend until the suspend has ended.
    if (flag_) {
      pushback_.push_back(bio);
      --inside_;
    } else {
      ended(bio, EIO);
    }
  }
  // From here on whatever comes in goes through, except what is inside already.
  void set_free() {
    free_ = true;
    stage->free = true;
    file_->hold(false);
  }
  void reissue() {
    std::vector<int> order = std::exchange(pushback_, {});
    for (int bio : deferred_) order.push_back(bio);
    deferred_.clear();
    closed_ = false;
    for (int bio : order) {
      result_[static_cast<size_t>(bio)] = 0;
      reissued_[static_cast<size_t>(bio)] = true;
    }
    // In order: what was pushed back, then what came later. They have gone to the file last.
    auto seen = file_->seen();
    ASSERT_GE(seen.size(), order.size());
    for (size_t i = 0; i < order.size(); ++i) {
      EXPECT_EQ(seen[seen.size() - order.size() + i].sector.n, uint64_t(order[i]) * 8);
    }
  }
  // What follows by itself: the suspend ends when nothing is inside, or by the interrupt.
  void settle() {
    if (!blocked_ || suspend_over_) return;
    if (inside_ > 0 && !interrupted_) return;
    until([&] { return !hands_[2].busy(); });
    suspend_over_ = true;
    flag_ = false;
    drained_ = inside_ == 0;
    if (drained_) {
      EXPECT_TRUE(device_.suspended());
      EXPECT_EQ(device_.held_count(), pushback_.size() + deferred_.size());
      EXPECT_EQ(device_.in_flight(), 0);
      return;
    }
    EXPECT_FALSE(device_.suspended());
    reissue();
  }

  std::array<Hand, 3>& hands_;  // one for each bio, one for the suspend
  const bool noflush_;
  FakeClock clock_;
  TestOpener opener_;
  HeldFile* file_ = nullptr;
  MappedDevice device_{0};
  CancelToken cancel_;
  std::optional<Status> suspended_;
  std::array<std::unique_ptr<TestBio>, 2> bios_{make(0), make(1)};

  // the model
  int inside_ = 0;
  bool closed_ = false, blocked_ = false, flag_ = false, interrupted_ = false, free_ = false;
  bool suspend_over_ = false, drained_ = false;
  std::vector<int> pushback_, deferred_;
  std::array<std::optional<int>, 2> result_;
  std::array<bool, 2> reissued_{};

  static std::unique_ptr<TestBio> make(int which) {
    auto bio = std::make_unique<TestBio>(Op::Write, Sectors{uint64_t(which) * 8}, Sectors{8});
    bio->pid = which + 1;
    return bio;
  }
};

std::string describe(const std::vector<Event>& order, const std::array<Fate, 2>& fates, bool noflush) {
  static const char* const kNames[] = {"submit", "map", "end", "presuspend", "block", "interrupt", "resume"};
  std::string text = noflush ? "noflush:" : "flush:";
  for (const Event& event : order) {
    text += " ";
    text += kNames[static_cast<size_t>(event.step)];
    if (event.step <= Step::End) text += std::to_string(event.bio);
  }
  for (Fate fate : fates) text += " fate " + std::to_string(static_cast<int>(fate));
  return text;
}

// A flush has two clones: one comes back, whatever the other says, and so the whole comes again.
TEST(Requeue, SupersedesTheErrorsOfAFlushWhichIsIssuedAgain) {
  auto here = std::make_unique<Stage>();
  here->fates = {Fate::EndOk, Fate::EndOk};
  stage = here.get();
  for (auto& may : stage->may_map) may = true;
  stage->may_block = true;
  for (int requeued : {0, 1}) {
    TestOpener opener;
    HeldFile& file = opener.add("a", 16);
    FakeClock clock;
    MappedDevice device(0);
    Table::Options options{registry(), opener, clock};
    TableSpec spec;
    spec.targets.push_back({{0}, {16}, "step", "a"});
    auto table = Table::build(spec, options);
    ASSERT_TRUE(table);
    CancelToken never;
    std::shared_ptr<Table> replaced;
    auto commit = [] { return Status(); };
    MutexLock lock(device.command_mutex());
    (void)device.set_inactive(std::move(*table));
    ASSERT_TRUE(device.resume({}, never, commit, replaced));
    file.hold(true);
    TestBio flush(Op::Flush, {0}, {0});
    flush.pid = 1;
    device.submit(flush);
    ASSERT_EQ(file.held(), 2u);
    std::thread ends([&] {
      while (!device.suspending() || !device.defers()) std::this_thread::yield();
      // The one that end_io sends back, and one that fails before or after it.
      stage->fates[0] = requeued == 0 ? Fate::EndRequeue : Fate::EndError;
      file.complete_next(EOPNOTSUPP);
      stage->fates[0] = requeued == 0 ? Fate::EndError : Fate::EndRequeue;
      file.complete_next(EOPNOTSUPP);
    });
    ASSERT_TRUE(device.suspend({.noflush = true, .lockfs = false}, never, commit));
    ends.join();
    EXPECT_FALSE(flush.done());
    EXPECT_EQ(device.held_count(), 1u);
    stage->fates[0] = Fate::EndOk;
    file.hold(false);
    file.forget_seen();
    ASSERT_TRUE(device.resume({}, never, commit, replaced));
    EXPECT_TRUE(flush.done());
    EXPECT_EQ(flush.error(), 0);
    EXPECT_EQ(file.seen().size(), 2u);
    std::vector<std::shared_ptr<Table>> tables = device.retire();
  }
}

// Tries every merge of the sequences, each in its own order.
class Orders {
 public:
  size_t count = 0;

  void all(std::vector<std::vector<Event>> sequences, const std::array<Fate, 2>& fates, bool noflush) {
    std::vector<Event> order;
    merge(sequences, order, fates, noflush);
  }

 private:
  void merge(std::vector<std::vector<Event>>& left, std::vector<Event>& order,
             const std::array<Fate, 2>& fates, bool noflush) {
    bool any = false;
    for (auto& sequence : left) {
      if (sequence.empty()) continue;
      any = true;
      Event event = sequence.front();
      sequence.erase(sequence.begin());
      order.push_back(event);
      merge(left, order, fates, noflush);
      order.pop_back();
      sequence.insert(sequence.begin(), event);
      if (testing::Test::HasFailure()) return;
    }
    if (!any) run(order, fates, noflush);
  }
  void run(const std::vector<Event>& order, const std::array<Fate, 2>& fates, bool noflush) {
    Stage here;
    here.fates = fates;
    stage = &here;
    SCOPED_TRACE(describe(order, fates, noflush));
    Play play(hands_, noflush);
    std::vector<Event> late;  // a resume waits for the suspend
    for (const Event& event : order) {
      if (event.step == Step::Resume && !play.may_resume()) {
        late.push_back(event);
        continue;
      }
      play.play(event);
      if (!late.empty() && play.may_resume()) {
        play.play(late.front());
        late.clear();
      }
    }
    ASSERT_TRUE(late.empty());
    play.compare();
    ++count;
  }

  std::array<Hand, 3> hands_;
};

std::vector<Event> bio_events(int bio, Fate fate) {
  std::vector<Event> events{{Step::Submit, bio}, {Step::Map, bio}};
  if (!ends_in_map(fate)) events.push_back({Step::End, bio});
  return events;
}

const std::vector<Event> kSuspend{{Step::Presuspend}, {Step::Block}, {Step::Resume}};
const std::vector<Event> kInterrupted{{Step::Presuspend}, {Step::Block}, {Step::Interrupt}, {Step::Resume}};
const std::vector<Event> kInterruptedEarly{{Step::Presuspend}, {Step::Interrupt}, {Step::Block}, {Step::Resume}};

void try_all(std::initializer_list<Fate> first, std::initializer_list<Fate> second) {
  Orders orders;
  for (bool noflush : {false, true}) {
    for (const auto* suspend : {&kSuspend, &kInterrupted, &kInterruptedEarly}) {
      for (Fate a : first) {
        for (Fate b : second) {
          orders.all({bio_events(0, a), bio_events(1, b), *suspend}, {a, b}, noflush);
          if (testing::Test::HasFailure()) return;
        }
      }
    }
  }
  std::printf("%zu orders\n", orders.count);
}

TEST(Interleaving, TwoBiosThatComeBack) {
  try_all({Fate::MapRequeue, Fate::EndRequeue}, {Fate::MapRequeue, Fate::EndRequeue});
}

TEST(Interleaving, OneComesBackAndOneEnds) {
  try_all({Fate::MapRequeue, Fate::EndRequeue}, {Fate::EndOk, Fate::MapKill});
}

TEST(Interleaving, OneFailsAndOneIsSentAgain) { try_all({Fate::EndError}, {Fate::EndIncomplete}); }

}  // namespace
}  // namespace dmfs::test
