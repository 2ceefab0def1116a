// SPDX-License-Identifier: Apache-2.0
// Legs that have missed what was acknowledged: remembered before it is acknowledged, and not copied
// from after a restart or by another table.
#include <atomic>

#include "core/base/mutex.h"
#include "tests/support/mirror_fixture.h"

namespace dmfs::test {
namespace {

class MirrorStale : public MirrorTest {
 protected:
  MirrorStale() {
    rig_.on_save([this](uint64_t position, const std::string& state) -> Status {
      EXPECT_EQ(position, 0u);
      ++asked_;
      while (held_) std::this_thread::yield();
      if (int error = error_) return Error{error, "the store fails, as the test wants"};
      MutexLock lock(mutex_);
      saved_ = state;
      return {};
    });
  }
  std::string saved() {
    MutexLock lock(mutex_);
    return saved_;
  }
  // What a daemon would find after it was killed now: what was saved, and the files.
  void restart() {
    TableSpec spec = device().live_table()->spec();
    spec.targets[0].state = saved();
    give_up_late();
    replace_table("error");
    ASSERT_TRUE(rig_.load(spec));
    ASSERT_TRUE(rig_.suspend({.noflush = true, .lockfs = false}));
    ASSERT_TRUE(rig_.resume());
  }
  // What is late never arrives.
  void give_up_late() {
    for (const char* name : {"a", "b", "c", "log"}) {
      file(name).hold(false);
      file(name).complete_all(EIO);
    }
  }
  // A leg does not answer a write in time.
  std::shared_ptr<TestBio> write_without(const std::string& leg, uint64_t at, char tag) {
    file(leg).hold(true);
    auto write = rig_.write(at, 8, tag);
    advance(300ms);
    return write;
  }

  std::atomic<bool> held_{false};
  std::atomic<int> error_{0};
  std::atomic<int> asked_{0};
  Mutex mutex_;
  std::string saved_ DM_GUARDED_BY(mutex_);
};

constexpr const char* kLate = "core 1 16 2 a 0 b 0 3 handle_errors io_timeout 300";

TEST_F(MirrorStale, RememberedBeforeTheWriteIsAcknowledged) {
  load(kLate);
  expect_status("2 a b 128/128 1 AA 1 core");
  held_ = true;
  auto w = write_without("a", 0, 'W');
  ASSERT_TRUE(eventually([&] { return asked_ == 1; }));
  EXPECT_FALSE(w->done());
  auto x = rig_.write(0, 8, 'X');  // only to b, and so it waits for the same
  EXPECT_FALSE(x->done());
  held_ = false;
  ASSERT_TRUE(becomes_done(w) && becomes_done(x));
  EXPECT_EQ(w->error() | x->error(), 0);
  EXPECT_EQ(saved(), "complete b 0");
  auto y = rig_.write(64, 8, 'Y');
  EXPECT_TRUE(y->done());  // that is known now
  EXPECT_EQ(asked_, 1);
  restart();
  expect_status("2 a b 128/128 1 AA 1 core");
  EXPECT_TRUE(holds("a", 'X', 0, 8) && holds("a", 'Y', 64, 8) && legs_equal());
  // The next restart may begin from either.
  EXPECT_TRUE(eventually([&] { return saved().empty(); }));
}

TEST_F(MirrorStale, NotAcknowledgedWhenItCannotBeRemembered) {
  load(kLate);
  expect_status("2 a b 128/128 1 AA 1 core");
  error_ = ENOSPC;
  auto w = write_without("a", 0, 'W');
  ASSERT_TRUE(becomes_done(w));
  EXPECT_EQ(w->error(), EIO);
  error_ = 0;
  auto x = rig_.write(0, 8, 'X');
  ASSERT_TRUE(becomes_done(x));
  EXPECT_EQ(x->error(), 0);
  EXPECT_EQ(saved(), "complete b 0");
}

TEST_F(MirrorStale, ALegThatIsNotTheFirstIsOnlyRememberedWhereTheLogForgets) {
  load(kLate);
  expect_status("2 a b 128/128 1 AA 1 core");
  auto w = write_without("b", 0, 'W');
  ASSERT_TRUE(becomes_done(w));
  EXPECT_EQ(asked_, 0);  // a restart copies all from a
  give_up_late();
  replace_table("error");
  fill("b", 'A');
  fill("a", 'A');
  replace_table("mirror core 2 16 nosync 2 a 0 b 0 3 handle_errors io_timeout 300");
  auto x = write_without("b", 0, 'X');
  ASSERT_TRUE(becomes_done(x));
  EXPECT_EQ(saved(), "complete a 0");
  restart();
  expect_status("2 a b 128/128 1 AA 1 core");
  EXPECT_TRUE(holds("b", 'X', 0, 8) && legs_equal());
}

TEST_F(MirrorStale, WithADiskLogOnlyWhatDiffersIsCopied) {
  load("disk 2 log 16 2 a 0 b 0 3 handle_errors io_timeout 300");
  expect_status("2 a b 128/128 1 AA 3 disk log A");
  advance(1s);
  ASSERT_TRUE(eventually([&] { return bits(16) == std::vector<int>(16, 255); }));
  auto w = write_without("a", 32, 'W');
  ASSERT_TRUE(becomes_done(w));
  EXPECT_EQ(saved(), "complete b 0");
  file("b").forget_seen();
  restart();
  expect_status("2 a b 128/128 1 AA 3 disk log A");
  EXPECT_TRUE(holds("a", 'W', 32, 8) && legs_equal());
  uint64_t read = 0;
  for (const SeenBio& bio : file("b").seen()) read += bio.op == Op::Read ? bio.count.n : 0;
  EXPECT_EQ(read, 16u);
}

TEST_F(MirrorStale, ForgottenOnlyWhenItIsOnStableStorage) {
  load(kLate);
  expect_status("2 a b 128/128 1 AA 1 core");
  auto w = write_without("a", 0, 'W');
  ASSERT_TRUE(becomes_done(w));
  file("a").forget_seen();
  file("a").hold(false);
  file("a").complete_all();
  advance(300ms);
  expect_status("2 a b 128/128 1 AA 1 core 2 late 1");
  ASSERT_TRUE(eventually([&] { return saved().empty(); }));
  auto seen = file("a").seen();
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen.back().op, Op::Flush);
}

TEST_F(MirrorStale, ATableThatTakesOverKnowsItToo) {
  load(kLate);
  expect_status("2 a b 128/128 1 AA 1 core");
  auto w = write_without("a", 0, 'W');
  ASSERT_TRUE(becomes_done(w));
  file("a").hold(false);
  file("a").complete_all();
  // The user forgets which leg has failed.
  replace_table("mirror core 1 16 3 c 0 a 0 b 0 1 handle_errors");
  expect_status("3 c a b 128/128 1 AAA 1 core");
  EXPECT_TRUE(holds("c", 'W', 0, 8) && legs_equal() && legs_equal("a", "c"));
  replace_table("error");

  fill("a", 'A');
  fill("b", 'A');
  load(kLate);
  expect_status("2 a b 128/128 1 AA 1 core");
  auto x = write_without("a", 0, 'X');
  ASSERT_TRUE(becomes_done(x));
  file("a").hold(false);
  file("a").complete_all();
  replace_table("mirror core 1 16 2 a 0 b 0 1 handle_errors");
  expect_status("2 a b 128/128 1 AA 1 core");
  EXPECT_TRUE(holds("a", 'X', 0, 8) && legs_equal());
}

// The second leg has missed something, and the new table begins with it.
TEST_F(MirrorStale, ATableThatTakesOverKnowsWhatWasNotSaved) {
  load(kLate);
  expect_status("2 a b 128/128 1 AA 1 core");
  auto w = write_without("b", 0, 'W');
  ASSERT_TRUE(becomes_done(w));
  EXPECT_EQ(asked_, 0);
  give_up_late();
  replace_table("mirror core 1 16 3 b 0 c 0 a 0 1 handle_errors");
  expect_status("3 b c a 128/128 1 AAA 1 core");
  EXPECT_TRUE(holds("b", 'W', 0, 8) && legs_equal() && legs_equal("a", "c"));
}

// Of three legs one is behind; when the first fails the third takes its place, not that one.
TEST_F(MirrorStale, OnlyALegThatHasAllBecomesTheFirst) {
  load("core 1 16 3 a 0 b 0 c 0 3 handle_errors io_timeout 300");
  expect_status("3 a b c 128/128 1 AAA 1 core");
  auto w = write_without("b", 0, 'W');
  ASSERT_TRUE(becomes_done(w));
  // What is there now went only to a, which is the first: c is behind too.
  auto x = rig_.write(0, 8, 'X');
  ASSERT_TRUE(becomes_done(x));
  give_up_late();
  advance(300ms);
  expect_status("3 a b c 128/128 1 AAA 1 core 2 late 1");
  EXPECT_TRUE(legs_equal() && legs_equal("a", "c"));

  auto y = write_without("b", 32, 'Y');
  ASSERT_TRUE(becomes_done(y));
  file("a").hold(true);
  auto z = rig_.write(64, 8, 'Z');  // to a, which does not answer, and c
  advance(300ms);
  ASSERT_TRUE(becomes_done(z));
  EXPECT_EQ(z->error(), 0);
  EXPECT_EQ(saved(), "complete c 0");
  EXPECT_TRUE(rig_.read(32, 8)->holds('Y', 32) && rig_.read(64, 8)->holds('Z', 64));
  restart();
  expect_status("3 a b c 128/128 1 AAA 1 core");
  EXPECT_TRUE(legs_equal() && legs_equal("a", "c"));
  EXPECT_TRUE(holds("a", 'Y', 32, 8) && holds("a", 'Z', 64, 8));
}

TEST_F(MirrorStale, WhatNoRestartWouldFindIsNotAcknowledged) {
  load("core 1 16 2 a 0 b 0 2 handle_errors keep_log");
  expect_status("2 a b 128/128 1 AA 1 core");
  file("a").fail_nth(1, EIO);
  auto w = rig_.write(0, 8, 'W');
  ASSERT_TRUE(becomes_done(w));
  EXPECT_EQ(w->error(), 0);
  EXPECT_EQ(saved(), "complete b 0");
  // Now the other one misses something, which a has.
  file("b").fail_nth(1, EIO);
  auto x = rig_.write(64, 8, 'X');
  ASSERT_TRUE(becomes_done(x));
  EXPECT_EQ(x->error(), EIO);
}

// Without handle_errors the kernel says nothing and begins again from the leg that failed.
TEST_F(MirrorStale, WithoutHandleErrors) {
  load("core 1 16 2 a 0 b 0");
  expect_status("2 a b 128/128 1 AA 1 core");
  file("a").fail_nth(1, EIO);
  auto w = rig_.write(0, 8, 'W');
  ASSERT_TRUE(becomes_done(w));
  EXPECT_EQ(w->error(), 0);
  restart();
  expect_status("2 a b 128/128 1 AA 1 core");
  EXPECT_TRUE(holds("a", 'W', 0, 8) && legs_equal());
}

}  // namespace
}  // namespace dmfs::test
