// SPDX-License-Identifier: Apache-2.0
// multipath's path_timeout: paths that hang, and writes that land late. Here p1 and p2 are names of
// one file: what each of them writes is put into `disk` in the order in which they end it.
#include <algorithm>
#include <array>
#include <thread>

#include "tests/support/multipath_rig.h"

namespace dmfs::test {
namespace {

using std::chrono::milliseconds;

constexpr const char* kTimed =
    "4 path_timeout 100 queue_mode bio 0 1 1 round-robin 0 2 0 p1 p2";
constexpr const char* kTimedQueueing =
    "5 queue_if_no_path path_timeout 100 queue_mode bio 0 1 1 round-robin 0 2 0 p1 p2";

class MultipathTimeout : public MultipathRig {
 protected:
  MultipathTimeout() {
    for (const char* name : {"p1", "p2"}) file(name).hold(true);
  }
  ~MultipathTimeout() override {
    for (const char* name : {"p1", "p2", "p3", "p4"}) {
      file(name).hold(false);
      (void)file(name).complete_all();
    }
  }
  void later(int ms = 100) { rig_.clock().advance(milliseconds(ms)); }
  // The file ends its oldest bio, or the index-th, and does so on the one disk that there is.
  void end(const char* name, size_t index = 0, int error = 0) {
    auto bios = file(name).held_bios();
    ASSERT_LT(index, bios.size()) << name;
    const Bio& bio = *bios[index];
    if (error == 0 && bio.op == Op::Write) {
      std::vector<std::byte> bytes(bio.bytes());
      copy_from_bio(bio.data, 0, bytes);
      for (uint64_t i = 0; i < bio.count.n; ++i) {
        disk_[bio.sector.n + i] = static_cast<char>(bytes[i * kSectorSize]);
      }
    }
    ASSERT_TRUE(file(name).complete_at(index, error));
  }
  size_t held(const char* name) { return file(name).held(); }
  std::string disk(uint64_t at, uint64_t count) { return disk_.substr(at, count); }

  std::string disk_ = std::string(100, '.');
};

TEST_F(MultipathTimeout, IsPrintedWhenItIsGiven) {
  start("4 queue_if_no_path PATH_TIMEOUT 2500 retain_attached_hw_handler 0 1 1 round-robin 0 1 0 p1");
  EXPECT_EQ(table(), "4 queue_if_no_path retain_attached_hw_handler path_timeout 2500 0 1 1 "
                     "round-robin 0 1 1 p1 1 ");
  for (const char* bad : {"2 path_timeout 0", "2 path_timeout 3600001", "2 path_timeout x"}) {
    Status loaded = load(std::string(bad) + " 0 1 1 round-robin 0 1 0 p1");
    ASSERT_FALSE(loaded) << bad;
    EXPECT_NE(loaded.error().message.find("path_timeout must be between 1 and 3600000"),
              std::string::npos);
  }
}

TEST_F(MultipathTimeout, WhatIsInTimeIsAsEver) {
  start(kTimed);
  auto w = rig_.write(3, 2, 'W', kBioFua);
  EXPECT_EQ(file("p1").seen()[0], (SeenBio{Op::Write, kBioFua, 0, {3}, {2}}));
  later(99);
  end("p1");
  EXPECT_EQ(w->error(), 0);
  EXPECT_TRUE(w->done());
  auto r = rig_.read(3, 2), flush = rig_.send(Op::Flush), discard = rig_.send(Op::Discard, 9, 3);
  EXPECT_EQ(held("p1") + held("p2"), 3u);
  (void)file("p1").complete_all();
  (void)file("p2").complete_all();
  for (auto& bio : {r, flush, discard}) EXPECT_TRUE(bio->done() && bio->error() == 0);
  later();
  EXPECT_EQ(status(), "2 0 0 0 1 1 A 0 2 0 p1 A 0 p2 A 0 ");
  EXPECT_EQ(events(), 0u);
  EXPECT_FALSE(target().lingers());
}

TEST_F(MultipathTimeout, APathThatHangsIsFailedAndItsIoGoesAnother) {
  start(kTimed);
  auto r = rig_.read(0, 8);
  ASSERT_EQ(held("p1"), 1u);
  auto w = rig_.write(8, 8);
  auto flush = rig_.send(Op::Flush);
  end("p2");
  ASSERT_EQ(held("p1"), 2u);
  later();
  EXPECT_EQ(status(), "2 0 0 0 1 1 A 0 2 0 p1 F 1 p2 A 0 ");
  EXPECT_EQ(events(), 1u);
  EXPECT_EQ(held("p2"), 2u);
  (void)file("p2").complete_all();
  for (auto& bio : {r, w, flush}) EXPECT_TRUE(bio->done() && bio->error() == 0);
  EXPECT_TRUE(target().lingers());
  (void)file("p1").complete_all();  // into no memory of anybody's
  EXPECT_FALSE(target().lingers());
}

TEST_F(MultipathTimeout, ALateErrorSaysNothing) {
  start(kTimed);
  auto w = rig_.write(0, 8);
  later();
  end("p2");
  EXPECT_EQ(w->error(), 0);
  end("p1", 0, ENOSPC);
  EXPECT_TRUE(w->done());
  EXPECT_EQ(events(), 1u);
}

TEST_F(MultipathTimeout, TheLastPathGoesByThePolicy) {
  start("4 path_timeout 100 queue_mode bio 0 1 1 round-robin 0 1 0 p1");
  auto w = rig_.write(0, 8);
  later();
  EXPECT_EQ(w->error(), EIO);
  EXPECT_TRUE(w->done());
  end("p1");
}

TEST_F(MultipathTimeout, TheLastPathQueues) {
  start("5 queue_if_no_path path_timeout 100 queue_mode bio 0 1 1 round-robin 0 1 0 p1");
  auto w = rig_.write(0, 8, 'W');
  later();
  EXPECT_FALSE(w->done());
  EXPECT_EQ(device().held().count, 1u);
  later(100000);
  EXPECT_FALSE(w->done());
  // The path is back, though it still has the first one: there is no passing in one file.
  ASSERT_TRUE(say("reinstate_path p1"));
  EXPECT_EQ(held("p1"), 1u);
  later();
  EXPECT_EQ(status(), "2 0 0 0 1 1 E 0 1 0 p1 F 2 ");
  ASSERT_TRUE(say("reinstate_path p1"));
  end("p1");
  EXPECT_FALSE(w->done());
  end("p1");
  EXPECT_TRUE(w->done() && w->error() == 0);
  EXPECT_EQ(disk(0, 8), "WWWWWWWW");
}

TEST_F(MultipathTimeout, PathsAreReported) {
  start(kTimed);
  auto one = rig_.write(0, 8);
  later();
  rig_.clock().advance(std::chrono::microseconds(70));
  end("p2");
  auto newer = rig_.write(0, 8, 'N');
  auto report = target().paths_report();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->features, "retain_attached_hw_handler path_timeout 100 queue_mode bio");
  EXPECT_EQ(report->waiting, 1u);
  ASSERT_EQ(report->groups.size(), 1u);
  EXPECT_EQ(report->groups[0].selector, "round-robin 0");
  const PathReport &p1 = report->groups[0].paths[0], &p2 = report->groups[0].paths[1];
  EXPECT_FALSE(p1.active);
  EXPECT_EQ(p1.in_flight, 1u);
  EXPECT_EQ(p1.stale, 1u);
  EXPECT_EQ(p1.errors, 1u);
  EXPECT_EQ(p1.fail_count, 1u);
  EXPECT_TRUE(p2.active);
  EXPECT_EQ(p2.stale + p2.errors, 0u);
  EXPECT_EQ(p2.latency, std::chrono::microseconds(70));
  EXPECT_TRUE(p2.checker.empty());
  end("p1");
  end("p2");
}

// ---- nothing newer is overwritten ---------------------------------------------------------------

TEST_F(MultipathTimeout, ANewerWriteWaitsForTheStaleOne) {
  start(kTimed);
  auto old = rig_.write(0, 8, 'o');
  later();
  auto newer = rig_.write(4, 2, 'N'), elsewhere = rig_.write(8, 2, 'e');
  auto reader = rig_.read(0, 8);
  EXPECT_EQ(held("p2"), 3u);  // the old one again, elsewhere, and the read
  (void)file("p2").complete_next();
  EXPECT_TRUE(old->done() && old->error() == 0);
  (void)file("p2").complete_all();
  EXPECT_TRUE(elsewhere->done() && reader->done());
  EXPECT_FALSE(newer->done());
  ASSERT_EQ(device().held().count, 1u);
  EXPECT_EQ(device().held().bios[0].sector, Sectors{4});
  EXPECT_EQ(target().freed_by(), "goes when a path has ended an overdue write of the same place");
  later(100000);
  EXPECT_FALSE(newer->done()) << "that it waits is no fault of the path";
  end("p1");
  ASSERT_EQ(held("p2"), 1u);
  end("p2");
  EXPECT_TRUE(newer->done() && newer->error() == 0);
  EXPECT_EQ(disk(0, 8), "ooooNNoo");
}

TEST_F(MultipathTimeout, AlsoOneThatWasUnderWayAlready) {
  start(kTimed);
  auto first = rig_.write(0, 2, 'a'), second = rig_.write(1, 2, 'b');
  EXPECT_EQ(held("p1") + held("p2"), 1u);  // they would touch
  later();
  ASSERT_EQ(held("p2"), 1u);
  end("p2");
  EXPECT_TRUE(first->done());
  EXPECT_FALSE(second->done());
  end("p1");
  end("p2");
  EXPECT_TRUE(second->done() && second->error() == 0);
  EXPECT_EQ(disk(0, 3), "abb");
}

TEST_F(MultipathTimeout, DiscardsAndZeroesAreChangesToo) {
  start(kTimed);
  auto discard = rig_.send(Op::Discard, 0, 8);
  later();
  end("p2");
  EXPECT_TRUE(discard->done());
  auto zeroes = rig_.send(Op::WriteZeroes, 7, 8), again = rig_.send(Op::Discard, 0, 8);
  auto write = rig_.write(20, 1);
  EXPECT_FALSE(zeroes->done());
  EXPECT_EQ(held("p2"), 2u);  // the very same discard passes, and what does not touch it
  (void)file("p2").complete_all();
  EXPECT_TRUE(again->done() && write->done());
  end("p1");
  end("p2");
  EXPECT_TRUE(zeroes->done() && zeroes->error() == 0);
}

TEST_F(MultipathTimeout, WhatWaitsIsOrderedAndCanBeKilled) {
  start(kTimed);
  auto old = rig_.write(0, 4, 'o');
  later();
  end("p2");
  auto first = rig_.write(2, 4, '1'), behind = rig_.write(5, 4, '2');
  EXPECT_EQ(held("p2"), 0u);  // the second touches only one that waits
  EXPECT_TRUE(device().cancel_held(*first, EINTR));
  EXPECT_EQ(first->error(), EINTR);
  ASSERT_EQ(held("p2"), 1u) << "nothing is in the way of the second any more";
  end("p2");
  EXPECT_TRUE(behind->done() && behind->error() == 0);
  EXPECT_EQ(events(), 1u);
  end("p1");
  EXPECT_EQ(disk(0, 9), "oooo.2222");
}

TEST_F(MultipathTimeout, OneThatWaitedForAPathThatHasFailedGoesAnother) {
  start("4 path_timeout 100 queue_mode bio 0 1 1 queue-length 0 2 0 p1 p2");
  auto old = rig_.write(0, 4, 'o');
  later();
  end("p2");
  ASSERT_TRUE(say("reinstate_path p1"));
  auto newer = rig_.write(0, 4, 'N');  // for p1 or p2: it waits
  EXPECT_EQ(held("p1") + held("p2"), 1u);
  for (const char* path : {"p1", "p2"}) {
    ASSERT_TRUE(say(std::string("fail_path ") + path));
    if (path == std::string("p2")) continue;
    ASSERT_TRUE(say("reinstate_path p1"));
  }
  end("p1");
  EXPECT_EQ(held("p1"), 1u);
  end("p1");
  EXPECT_TRUE(newer->done() && newer->error() == 0);
  EXPECT_EQ(disk(0, 4), "NNNN");
  // Selectors have got back what they counted.
  EXPECT_NE(status().find("p1 A 2 0 p2 F 1 0"), std::string::npos) << status();
}

TEST_F(MultipathTimeout, TheSameDataIsNotHeldUp) {
  start(kTimed);
  auto old = rig_.write(0, 4, 'o');
  later();
  end("p2");
  auto other = rig_.write(0, 4, 'x');
  auto same = rig_.write(0, 4, 'o'), part = rig_.write(0, 2, 'o');
  EXPECT_EQ(held("p2"), 1u);
  end("p2");
  EXPECT_TRUE(same->done() && !other->done() && !part->done());
  end("p1");
  end("p2");
  EXPECT_TRUE(other->done() && !part->done());
  end("p2");
  EXPECT_EQ(disk(0, 4), "ooxx");
}

// ---- suspends and new tables ---------------------------------------------------------------------

TEST_F(MultipathTimeout, ASuspendThatFlushesWaitsForIt) {
  start(kTimed);
  auto old = rig_.write(0, 4, 'o');
  later();
  end("p2");
  auto newer = rig_.write(0, 4, 'N');
  auto done = suspending({.noflush = false, .lockfs = false});
  EXPECT_FALSE(newer->done());
  end("p1");
  ASSERT_TRUE(file("p2").wait_held(1));
  end("p2");
  EXPECT_TRUE(done.get());
  EXPECT_EQ(newer->error(), 0);
  EXPECT_EQ(disk(0, 4), "NNNN");
}

TEST_F(MultipathTimeout, NoflushTakesItBackAndItWaitsAgain) {
  start(kTimed);
  auto old = rig_.write(0, 4, 'o');
  later();
  end("p2");
  auto newer = rig_.write(0, 4, 'N');
  ASSERT_TRUE(rig_.suspend(kNoflush));
  EXPECT_EQ(device().held_count(), 1u);
  ASSERT_TRUE(rig_.resume());
  EXPECT_FALSE(newer->done());
  EXPECT_EQ(held("p2"), 0u);
  end("p1");
  end("p2");
  EXPECT_TRUE(newer->done() && newer->error() == 0);
  EXPECT_EQ(disk(0, 4), "NNNN");
}

TEST_F(MultipathTimeout, ANewTableMindsWhatTheOldOneHasOut) {
  start(kTimedQueueing);
  auto old = rig_.write(0, 4, 'o');
  later();
  ASSERT_TRUE(say("fail_path p2"));
  end("p2", 0, EIO);
  EXPECT_FALSE(old->done());
  auto newer = rig_.write(2, 4, 'N');
  ASSERT_TRUE(load("5 queue_if_no_path path_timeout 100 queue_mode bio 0 1 1 round-robin 0 1 0 p3"));
  file("p3").hold(true);
  ASSERT_TRUE(rig_.suspend(kNoflush));
  std::thread resume([&] { EXPECT_TRUE(rig_.resume()); });  // the old table goes when p1 lets it
  ASSERT_TRUE(file("p3").wait_held(1));
  EXPECT_EQ(held("p3"), 1u);
  end("p3");  // the old one once more, which is the same
  while (!old->done()) std::this_thread::yield();  // the other thread may be the one to tell
  EXPECT_EQ(old->error(), 0);
  EXPECT_FALSE(newer->done());
  EXPECT_EQ(held("p3"), 0u);
  end("p1");
  resume.join();
  ASSERT_TRUE(file("p3").wait_held(1));
  end("p3");
  while (!newer->done()) std::this_thread::yield();
  EXPECT_EQ(newer->error(), 0);
  EXPECT_EQ(disk(0, 6), "ooNNNN");
}

TEST_F(MultipathTimeout, ATableThatMindsNothingWaits) {
  start(kTimed);
  auto old = rig_.write(0, 4, 'o');
  later();
  end("p2");
  ASSERT_TRUE(load("2 queue_mode bio 0 1 1 round-robin 0 1 0 p2"));
  ASSERT_TRUE(rig_.suspend(kNoflush));
  Status refused = rig_.resume();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EBUSY);
  end("p1");
  EXPECT_TRUE(rig_.resume());
}

TEST_F(MultipathTimeout, AnotherTableBetweenDoesNotForget) {
  start(kTimed);
  auto old = rig_.write(0, 4, 'o');
  later();
  end("p2");
  std::vector<std::shared_ptr<Table>> gone;
  auto swap = [&](const std::string& line) {
    ASSERT_TRUE(rig_.load("0 100 " + line));
    ASSERT_TRUE(rig_.suspend(kNoflush));
    CancelToken never;
    std::shared_ptr<Table> replaced;
    MutexLock lock(device().command_mutex());
    ASSERT_TRUE(device().resume({}, never, [] { return Status(); }, replaced));
    gone.push_back(std::move(replaced));
  };
  swap("error");
  EXPECT_EQ(rig_.write(0, 1)->error(), EIO);
  swap(std::string("multipath ") + kTimed);
  auto newer = rig_.write(0, 4, 'N'), same = rig_.write(0, 4, 'o');
  EXPECT_FALSE(newer->done());
  while (held("p2") > 0) end("p2");
  while (held("p1") > 1) end("p1", 1);
  EXPECT_TRUE(same->done());
  swap(std::string("multipath ") + kTimed);
  EXPECT_FALSE(newer->done());
  EXPECT_EQ(held("p1") + held("p2"), 1u);
  end("p1");
  ASSERT_EQ(held("p1") + held("p2"), 1u);
  end(held("p1") ? "p1" : "p2");
  EXPECT_TRUE(newer->done() && newer->error() == 0);
  EXPECT_EQ(disk(0, 4), "NNNN");
}

// Any order of writes, timeouts, late ends, failures, suspends and new tables. A value may be on the
// disk as long as no write has been acknowledged that began after the one of the value had ended.
TEST_F(MultipathTimeout, NoAcknowledgedWriteIsEverLost) {
  constexpr uint64_t kSectors = 5;
  struct Write {
    std::shared_ptr<TestBio> bio;
    uint64_t at, count;
    char tag;
    size_t begun, ended = SIZE_MAX;
  };
  start(kTimedQueueing);
  std::vector<std::shared_ptr<Table>> gone;
  size_t waited = 0, late = 0;
  for (uint32_t seed = 1; seed <= 400; ++seed) {
    uint32_t random = seed * 2654435761u;
    auto pick = [&random](uint32_t below) {
      random = random * 1664525u + 1013904223u;
      return (random >> 8) % below;
    };
    std::vector<Write> writes;
    disk_.assign(100, '.');
    char tag = 'a';
    size_t step = 0;
    auto check = [&] {
      for (Write& write : writes) {
        if (write.ended == SIZE_MAX && write.bio->done()) write.ended = step;
      }
      for (uint64_t s = 0; s < kSectors; ++s) {
        size_t ended = 0;  // of what is there; the disk was empty at first
        for (const Write& write : writes) {
          if (write.tag == disk_[s]) ended = write.ended;
        }
        for (const Write& write : writes) {
          if (s < write.at || s >= write.at + write.count) continue;
          bool acknowledged = write.ended != SIZE_MAX && write.bio->error() == 0;
          ASSERT_FALSE(acknowledged && write.begun > ended && write.tag != disk_[s])
              << "seed " << seed << " step " << step << ": sector " << s << " has " << disk_[s]
              << ", not " << write.tag;
        }
      }
    };
    for (step = 1; step <= 60; ++step) {
      switch (pick(12)) {
        case 0: case 1: case 2: {
          if (tag > 'z') break;
          uint64_t at = pick(kSectors), count = 1 + pick(static_cast<uint32_t>(kSectors - at));
          writes.push_back({rig_.write(at, count, tag), at, count, tag, step});
          ++tag;
          break;
        }
        case 3: case 4: case 5: case 6: case 7: {
          const char* path = pick(2) ? "p1" : "p2";
          size_t n = held(path);
          if (n > 0) end(path, pick(static_cast<uint32_t>(n)), pick(6) == 0 ? EIO : 0);
          break;
        }
        case 8:
          later();
          break;
        case 9: case 10:
          (void)say(pick(2) ? "reinstate_path p1" : "reinstate_path p2");
          break;
        case 11: {
          // What is in a file is overdue first, so that nobody has to wait here.
          for (int i = 0; i < 4 && device().in_flight() > 0; ++i) later();
          if (pick(2)) {
            ASSERT_TRUE(load(kTimedQueueing));
          }
          auto suspended = suspending(kNoflush);
          while (suspended.wait_for(milliseconds(0)) != std::future_status::ready) {
            later();
            std::this_thread::yield();
          }
          ASSERT_TRUE(suspended.get());
          CancelToken never;
          std::shared_ptr<Table> replaced;
          {
            MutexLock lock(device().command_mutex());
            ASSERT_TRUE(device().resume({}, never, [] { return Status(); }, replaced));
          }
          if (replaced) gone.push_back(std::move(replaced));
          break;
        }
      }
      check();
      waited += target().lingers();
      late += target().freed_by().starts_with("goes when a path");
      if (HasFatalFailure()) return;
    }
    // To the end: all of it goes.
    for (int i = 0; i < 200; ++i) {
      (void)say("reinstate_path p1");
      (void)say("reinstate_path p2");
      for (const char* path : {"p1", "p2"}) {
        while (held(path) > 0) end(path, pick(static_cast<uint32_t>(held(path))));
      }
      if (std::all_of(writes.begin(), writes.end(), [](auto& w) { return w.bio->done(); })) break;
    }
    ++step;
    check();
    for (const Write& write : writes) ASSERT_TRUE(write.bio->done()) << "seed " << seed;
    if (HasFatalFailure()) return;
    gone.clear();
  }
  EXPECT_GT(waited, 1000u);
  EXPECT_GT(late, 100u);
}

}  // namespace
}  // namespace dmfs::test
