// SPDX-License-Identifier: Apache-2.0
// multipath: where I/O goes, failover, queueing, and suspends. What it prints and parses is in
// multipath_args_test.cc, activation in hw_handler_test.cc.
#include <thread>

#include "tests/support/multipath_rig.h"

namespace dmfs::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Multipath : public MultipathRig {};

// ---- one group ---------------------------------------------------------------------------------

TEST_F(Multipath, PathsTakeTurns) {
  start(kOneGroup);
  EXPECT_EQ(status(), "2 1 0 0 1 1 E 0 2 0 p1 A 0 p2 A 0 ");
  for (uint64_t i = 0; i < 6; ++i) EXPECT_EQ(rig_.write(i, 1)->error(), 0);
  EXPECT_EQ(seen("p1"), 3u);
  EXPECT_EQ(seen("p2"), 3u);
  EXPECT_EQ(status(), "2 0 0 0 1 1 A 0 2 0 p1 A 0 p2 A 0 ");
  EXPECT_EQ(file("p2").seen()[0], (SeenBio{Op::Write, 0, 0, {1}, {1}}));
  EXPECT_EQ(events(), 0u);
}

TEST_F(Multipath, EveryKindOfIo) {
  start("2 queue_mode bio 0 1 1 round-robin 0 1 1 p1 1");
  EXPECT_EQ(rig_.write(10, 8, 'A', kBioFua)->error(), 0);
  EXPECT_EQ(rig_.read(10, 8)->error(), 0);
  EXPECT_EQ(rig_.send(Op::Flush)->error(), 0);
  EXPECT_EQ(rig_.send(Op::Discard, 10, 8)->error(), 0);
  EXPECT_EQ(rig_.send(Op::WriteZeroes, 10, 8)->error(), 0);
  std::vector<SeenBio> all{{Op::Write, kBioFua, 0, {10}, {8}}, {Op::Read, 0, 0, {10}, {8}},
                           {Op::Flush, 0, 0, {0}, {0}},        {Op::Discard, 0, 0, {10}, {8}},
                           {Op::WriteZeroes, 0, 0, {10}, {8}}};
  EXPECT_EQ(file("p1").seen(), all);
}

TEST_F(Multipath, AFailedPathIsLeftAndTheBioGoesAnother) {
  start(kOneGroup);
  file("p1").fail_all(EIO);
  auto r = rig_.read(0, 8);
  EXPECT_TRUE(r->done());
  EXPECT_EQ(r->error(), 0);
  EXPECT_EQ(status(), "2 0 0 0 1 1 A 0 2 0 p1 F 1 p2 A 0 ");
  EXPECT_EQ(events(), 1u);
  EXPECT_EQ(rig_.write(0, 8)->error(), 0);
  EXPECT_EQ(seen("p1"), 1u);
  EXPECT_EQ(seen("p2"), 2u);
  // The second one too, and nothing is left.
  file("p2").fail_all(EIO);
  EXPECT_EQ(rig_.read(0, 8)->error(), EIO);
  EXPECT_EQ(events(), 2u);
  EXPECT_EQ(rig_.send(Op::Flush)->error(), EIO);
  EXPECT_EQ(seen("p2"), 3u);
  EXPECT_EQ(status(), "2 0 0 0 1 1 E 0 2 0 p1 F 1 p2 F 1 ");
  // It comes back, and the fail count stays.
  file("p1").fail_all(0);
  EXPECT_EQ(rig_.read(0, 8)->error(), EIO);
  ASSERT_TRUE(say("reinstate_path p1"));
  EXPECT_EQ(events(), 3u);
  EXPECT_EQ(rig_.read(0, 8)->error(), 0);
  EXPECT_EQ(status(), "2 0 0 0 1 1 A 0 2 0 p1 A 1 p2 F 1 ");
  ASSERT_TRUE(say("reinstate_path p1"));
  EXPECT_EQ(events(), 3u);
}

TEST_F(Multipath, WithNoPathLeftTheErrorIsEio) {
  start(kOneGroup);
  file("p1").fail_all(ETIMEDOUT);
  file("p2").fail_all(ETIMEDOUT);
  EXPECT_EQ(rig_.write(0, 8)->error(), EIO);
}

TEST_F(Multipath, ErrorsOfTheTargetFailNoPath) {
  start(kOneGroup);
  for (int error : {ENOSPC, EDQUOT, EFBIG, EINVAL, EILSEQ, EOPNOTSUPP, EREMOTEIO, EBADE, ENODATA}) {
    file("p1").fail_nth(1, error);
    file("p2").fail_nth(1, error);
    EXPECT_EQ(rig_.write(0, 1)->error(), error);
    EXPECT_EQ(rig_.write(0, 1)->error(), error);
  }
  EXPECT_EQ(events(), 0u);
  for (int error : {EIO, ENXIO, ENODEV, ENOENT, EBADF, ETIMEDOUT, ESTALE, ENOLINK, ENOMEM, EACCES,
                    ENOTCONN, EHOSTDOWN}) {
    file("p1").fail_nth(1, error);
    file("p2").fail_nth(1, error);
    EXPECT_EQ(rig_.write(0, 1)->error(), EIO) << error;
    ASSERT_TRUE(say("reinstate_path p1"));
    ASSERT_TRUE(say("reinstate_path p2"));
  }
}

TEST_F(Multipath, SenseSaysMoreThanTheErrno) {
  start(kOneGroup);
  file("p1").hold(true);
  file("p2").hold(true);
  auto medium = rig_.read(0, 1);
  ASSERT_TRUE(file("p1").complete_next(EIO, Sense{0x3, 0x11, 0, true}));
  EXPECT_EQ(medium->error(), EIO);
  EXPECT_EQ(medium->sense, (Sense{0x3, 0x11, 0, true}));
  EXPECT_EQ(events(), 0u);
  auto hardware = rig_.read(0, 1);
  ASSERT_TRUE(file("p2").complete_next(ENOSPC, Sense{0x4, 0, 0, true}));
  EXPECT_FALSE(hardware->done());
  EXPECT_EQ(events(), 1u);
  ASSERT_TRUE(file("p1").complete_next());
  EXPECT_EQ(hardware->error(), 0);
  EXPECT_EQ(status(), "2 0 0 0 1 1 A 0 2 0 p1 A 0 p2 F 1 ");
}

TEST_F(Multipath, BecomingReadyIsSentAgainAfterAWhile) {
  start("2 queue_mode bio 0 1 1 round-robin 0 1 1 p1 1");
  constexpr Sense kBecomingReady{0x6, 0x04, 0x01, true};
  file("p1").hold(true);
  auto r = rig_.read(7, 1);
  ASSERT_TRUE(file("p1").complete_next(EIO, kBecomingReady));
  EXPECT_FALSE(r->done());
  EXPECT_EQ(file("p1").held(), 0u);
  EXPECT_EQ(device().held().count, 1u);
  EXPECT_EQ(device().held().bios[0].sector, Sectors{7});
  rig_.clock().advance(milliseconds(250));
  ASSERT_TRUE(file("p1").complete_next());
  EXPECT_EQ(r->error(), 0);
  // But not for ever.
  auto never = rig_.read(7, 1);
  int times = 0;
  while (!never->done()) {
    ASSERT_TRUE(file("p1").complete_next(EIO, kBecomingReady));
    ++times;
    rig_.clock().advance(milliseconds(250));
  }
  EXPECT_EQ(never->error(), EIO);
  EXPECT_EQ(times, 61);
  EXPECT_EQ(status(), "2 0 0 0 1 1 A 0 1 0 p1 F 1 ");
}

TEST_F(Multipath, WhatWaitsToBeSentAgainGoesAtASuspend) {
  start("2 queue_mode bio 0 1 1 round-robin 0 1 1 p1 1");
  file("p1").hold(true);
  auto r = rig_.read(7, 1), killed = rig_.read(8, 1);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(file("p1").complete_next(EIO, Sense{0x6, 0x04, 0x01, true}));
  EXPECT_TRUE(device().cancel_held(*killed, EINTR));
  EXPECT_EQ(killed->error(), EINTR);
  auto suspended = std::async(std::launch::async, [&] { return rig_.suspend(); });
  ASSERT_TRUE(file("p1").wait_held(1));
  ASSERT_TRUE(file("p1").complete_next());
  EXPECT_TRUE(suspended.get());
  EXPECT_EQ(r->error(), 0);
}

TEST_F(Multipath, ManyInFlightOnAPathThatFailsAllGoAnother) {
  start(kOneGroup);
  file("p1").hold(true);
  std::vector<std::shared_ptr<TestBio>> writes;
  for (uint64_t i = 0; i < 40; ++i) writes.push_back(rig_.write(i, 1));
  EXPECT_EQ(file("p1").held(), 20u);
  while (file("p1").complete_next(EIO)) {
  }
  for (auto& write : writes) EXPECT_EQ(write->error(), 0);
  for (auto& write : writes) EXPECT_TRUE(write->done());
  EXPECT_EQ(events(), 1u);
  EXPECT_EQ(status(), "2 0 0 0 1 1 A 0 2 0 p1 F 1 p2 A 0 ");
}

TEST_F(Multipath, AThousandPathsFailOneAfterTheOther) {
  std::string line = "2 queue_mode bio 0 1 1 round-robin 0 1000 0";
  for (int i = 0; i < 1000; ++i) {
    std::string name = "x" + std::to_string(i);
    if (i < 999) rig_.file(name, 100).fail_all(EIO);
    else rig_.file(name, 100);
    line += " " + name;
  }
  start(line);
  EXPECT_EQ(rig_.write(0, 1)->error(), 0);  // without a stack that deep
  EXPECT_EQ(events(), 999u);
}

TEST_F(Multipath, PathsAreWhereTheTargetIs) {
  ASSERT_TRUE(rig_.load("0 40 linear p4 0\n40 60 linear p4 40"));
  ASSERT_TRUE(rig_.resume());
  Rig other;
  other.file("a", 60);
  other.file("b", 60);
  std::string line = "multipath 2 queue_mode bio 0 1 1 round-robin 0 2 1 a 1 b 1\n";
  ASSERT_TRUE(other.load("0 40 " + line + "40 60 " + line));
  ASSERT_TRUE(other.resume());
  other.file("a").fail_all(EIO);
  EXPECT_EQ(other.write(30, 20)->error(), 0);  // both halves fail over
  auto seen = other.file("b").seen();
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0], (SeenBio{Op::Write, 0, 0, {30}, {10}}));
  EXPECT_EQ(seen[1], (SeenBio{Op::Write, 0, 0, {0}, {10}}));
}

// ---- messages -----------------------------------------------------------------------------------

TEST_F(Multipath, FailAndReinstateByMessage) {
  start(kOneGroup);
  ASSERT_TRUE(say("fail_path p1"));
  EXPECT_EQ(events(), 1u);
  ASSERT_TRUE(say("FAIL_PATH p1"));
  EXPECT_EQ(events(), 1u);
  EXPECT_EQ(status(), "2 1 0 0 1 1 E 0 2 0 p1 F 1 p2 A 0 ");
  ASSERT_TRUE(say("fail_path p2"));
  EXPECT_EQ(rig_.read(0, 1)->error(), EIO);
  EXPECT_EQ(status(), "2 0 0 0 1 1 E 0 2 0 p1 F 1 p2 F 1 ");
  ASSERT_TRUE(say("reinstate_path p2"));
  EXPECT_EQ(rig_.read(0, 1)->error(), 0);
  EXPECT_EQ(seen("p1"), 0u);
}

TEST_F(Multipath, Groups) {
  start(kTwoGroups);
  EXPECT_EQ(status(), "2 1 0 0 2 1 E 0 2 0 p1 A 0 p2 A 0 E 0 2 0 p3 A 0 p4 A 0 ");
  EXPECT_EQ(rig_.read(0, 1)->error(), 0);
  EXPECT_EQ(status(), "2 0 0 0 2 1 A 0 2 0 p1 A 0 p2 A 0 E 0 2 0 p3 A 0 p4 A 0 ");
  ASSERT_TRUE(say("switch_group 2"));
  EXPECT_EQ(events(), 1u);
  EXPECT_EQ(table(),
            "3 retain_attached_hw_handler queue_mode bio 0 2 2 round-robin 0 2 1 p1 1 p2 1 "
            "round-robin 0 2 1 p3 1 p4 1 ");
  EXPECT_EQ(rig_.read(0, 1)->error(), 0);
  EXPECT_EQ(seen("p3"), 1u);
  ASSERT_TRUE(say("disable_group 2"));
  EXPECT_EQ(rig_.read(0, 1)->error(), 0);
  EXPECT_EQ(status(), "2 0 0 0 2 1 A 0 2 0 p1 A 0 p2 A 0 D 0 2 0 p3 A 0 p4 A 0 ");
  // A group that is disabled is used when nothing else has paths.
  ASSERT_TRUE(say("disable_group 1"));
  EXPECT_EQ(rig_.read(0, 1)->error(), 0);
  EXPECT_EQ(status(), "2 0 0 0 2 1 D 0 2 0 p1 A 0 p2 A 0 D 0 2 0 p3 A 0 p4 A 0 ");
  ASSERT_TRUE(say("enable_group 1"));
  ASSERT_TRUE(say("enable_group 2"));
  EXPECT_EQ(events(), 5u);
  // With no path left in one group it is the other's turn, and it stays there.
  file("p1").fail_all(EIO);
  file("p2").fail_all(EIO);
  EXPECT_EQ(rig_.read(0, 1)->error(), 0);
  EXPECT_EQ(status(), "2 0 0 0 2 2 E 0 2 0 p1 F 1 p2 F 1 A 0 2 0 p3 A 0 p4 A 0 ");
  file("p1").fail_all(0);
  ASSERT_TRUE(say("reinstate_path p1"));
  EXPECT_EQ(rig_.read(0, 1)->error(), 0);
  EXPECT_EQ(status(), "2 0 0 0 2 2 E 0 2 0 p1 A 1 p2 F 1 A 0 2 0 p3 A 0 p4 A 0 ");
  // A switch to a group takes the bypass off all.
  ASSERT_TRUE(say("disable_group 2"));
  ASSERT_TRUE(say("switch_group 1"));
  EXPECT_EQ(status(), "2 0 0 0 2 1 E 0 2 0 p1 A 1 p2 F 1 E 0 2 0 p3 A 0 p4 A 0 ");
}

TEST_F(Multipath, TheInitialGroup) {
  start("2 queue_mode bio 0 2 2 round-robin 0 1 1 p1 1 round-robin 0 1 1 p3 1");
  EXPECT_EQ(status(), "2 1 0 0 2 2 E 0 1 0 p1 A 0 E 0 1 0 p3 A 0 ");
  EXPECT_EQ(rig_.read(0, 1)->error(), 0);
  EXPECT_EQ(status(), "2 0 0 0 2 2 E 0 1 0 p1 A 0 A 0 1 0 p3 A 0 ");
}

TEST_F(Multipath, BadMessages) {
  start(kOneGroup);
  const std::pair<const char*, const char*> cases[] = {
      {"fail_path", "multipath: Invalid multipath message arguments. Expected 2 arguments, got 1."},
      {"fail_path a b", "multipath: Invalid multipath message arguments. Expected 2 arguments, got 3."},
      {"nosuch", "multipath: Invalid multipath message arguments. Expected 2 arguments, got 1."},
      {"nosuch p1", "multipath: Unrecognised multipath message received: nosuch"},
      {"queue_if_no_path x", "multipath: Unrecognised multipath message received: queue_if_no_path"},
      {"switch_group 0", "multipath: invalid PG number supplied to switch_pg_num: '0'"},
      {"switch_group 2", "multipath: invalid PG number supplied to switch_pg_num: '2'"},
      {"switch_group x", "multipath: invalid PG number supplied to switch_pg_num: 'x'"},
      {"disable_group 0", "multipath: invalid PG number supplied to bypass_pg: '0'"},
      {"enable_group 9", "multipath: invalid PG number supplied to bypass_pg: '9'"},
  };
  for (auto [message, text] : cases) {
    Status said = say(message);
    ASSERT_FALSE(said) << message;
    EXPECT_EQ(said.error().code, EINVAL);
    EXPECT_EQ(said.error().message, text);
  }
  Status said = say("fail_path nosuch");
  EXPECT_EQ(said.error().code, ENOENT);
  EXPECT_TRUE(said.error().message.starts_with("multipath: message: error getting device nosuch: "));
  EXPECT_EQ(events(), 0u);
}

TEST_F(Multipath, NoMessageWhileSuspended) {
  start(kQueueing);
  ASSERT_TRUE(rig_.suspend());
  EXPECT_EQ(say("fail_path p1").error().code, EBUSY);
  EXPECT_EQ(say("nonsense").error().code, EBUSY);
  EXPECT_EQ(table(), "3 retain_attached_hw_handler queue_mode bio 0 1 1 round-robin 0 2 1 p1 1 p2 1 ");
  ASSERT_TRUE(rig_.resume());
  EXPECT_TRUE(say("fail_path p1"));
  EXPECT_EQ(table(),
            "4 queue_if_no_path retain_attached_hw_handler queue_mode bio 0 1 1 round-robin 0 2 1 p1 1 "
            "p2 1 ");
}

// ---- no path ------------------------------------------------------------------------------------

TEST_F(Multipath, QueuesUntilThereIsAPath) {
  start(kQueueing);
  file("p1").fail_all(EIO);
  file("p2").fail_all(EIO);
  auto failed_over = rig_.read(3, 1);
  EXPECT_EQ(status(), "2 0 0 0 1 1 E 0 2 0 p1 F 1 p2 F 1 ");
  auto w = rig_.write(10, 8, 'Q'), flush = rig_.send(Op::Flush);
  EXPECT_FALSE(failed_over->done() || w->done() || flush->done());
  HeldList held = device().held();
  ASSERT_EQ(held.count, 3u);
  EXPECT_EQ(held.bios[0].sector, Sectors{3});
  EXPECT_STREQ(held.bios[1].where.c_str(), "multipath");
  EXPECT_EQ(target().freed_by(), "message 'reinstate_path <path>' or 'fail_if_no_path'");
  file("p2").fail_all(0);
  ASSERT_TRUE(say("reinstate_path p2"));
  for (auto& bio : {failed_over, w, flush}) {
    EXPECT_TRUE(bio->done());
    EXPECT_EQ(bio->error(), 0);
  }
  EXPECT_TRUE(rig_.read(10, 8)->holds('Q', 10));
  EXPECT_EQ(events(), 3u);
}

TEST_F(Multipath, FailIfNoPath) {
  start(kQueueing);
  ASSERT_TRUE(say("fail_path p1"));
  ASSERT_TRUE(say("fail_path p2"));
  auto one = rig_.write(0, 1), two = rig_.write(1, 1);
  ASSERT_TRUE(say("fail_if_no_path"));
  EXPECT_EQ(one->error(), EIO);
  EXPECT_TRUE(two->done());
  EXPECT_EQ(rig_.write(0, 1)->error(), EIO);
  EXPECT_EQ(table(), "3 retain_attached_hw_handler queue_mode bio 0 1 1 round-robin 0 2 1 p1 1 p2 1 ");
  ASSERT_TRUE(say("queue_if_no_path"));
  auto three = rig_.write(0, 1);
  EXPECT_FALSE(three->done());
  ASSERT_TRUE(say("reinstate_path p1"));
  EXPECT_EQ(three->error(), 0);
  EXPECT_EQ(events(), 3u);  // of these messages, two raise none
}

TEST_F(Multipath, WithoutAnyPath) {
  start("1 queue_if_no_path 0 0 0");
  EXPECT_EQ(status(), "2 1 0 0 0 0 ");
  EXPECT_EQ(table(), "1 queue_if_no_path 0 0 0 ");
  auto w = rig_.write(0, 1);
  EXPECT_FALSE(w->done());
  EXPECT_EQ(status(), "2 0 0 0 0 0 ");
  ASSERT_TRUE(load("1 queue_if_no_path 0 1 1 round-robin 0 1 1 p1 1"));
  ASSERT_TRUE(rig_.suspend(kNoflush));
  ASSERT_TRUE(rig_.resume());
  EXPECT_EQ(w->error(), 0);
  EXPECT_EQ(seen("p1"), 1u);
}

TEST(MultipathBudget, KeepsNoMoreThanMayBeHeld) {
  HeldBudget budget(4096);
  TestOpener opener;
  HeldFile& path = opener.add("a", 100);
  path.hold(false);
  FakeClock clock;
  MappedDevice device(0, budget);
  unsigned events = 0;
  Table::Options options{builtin_registry(), opener, clock};
  options.budget = &device.held_budget();
  options.raise_event = [&events] { ++events; };
  auto table = Table::build(
      parse_table("0 100 multipath 3 queue_if_no_path queue_mode bio 0 1 1 round-robin 0 1 0 a"),
      options);
  ASSERT_TRUE(table);
  Target& target = *(*table)->entries()[0].target;
  CancelToken never;
  std::shared_ptr<Table> replaced;
  {
    MutexLock lock(device.command_mutex());
    (void)device.set_inactive(std::move(*table));
    ASSERT_TRUE(device.resume({}, never, [] { return Status(); }, replaced));
  }
  path.hold(true);
  TestBio over(Op::Write, {0}, {8}), first(Op::Write, {8}, {8}), second(Op::Write, {0}, {1}),
      third(Op::Read, {0}, {1}), discard(Op::Discard, {0}, {10});
  device.submit(over);
  ASSERT_TRUE(path.complete_next(EIO));
  EXPECT_EQ(events, 1u);
  EXPECT_EQ(budget.used(), 4096u);
  device.submit(first);
  EXPECT_EQ(first.error(), ENOMEM);
  EXPECT_EQ(events, 2u);
  for (TestBio* bio : {&second, &third, &discard}) device.submit(*bio);
  EXPECT_EQ(second.error(), ENOMEM);
  EXPECT_EQ(third.error(), ENOMEM);
  EXPECT_FALSE(over.done() || discard.done());  // a discard has no data
  EXPECT_EQ(events, 2u) << "told once";
  path.hold(false);
  ASSERT_TRUE(target.message(std::vector<std::string>{"reinstate_path", "a"}));
  EXPECT_TRUE(over.done() && discard.done());
  EXPECT_EQ(over.error(), 0);
  EXPECT_EQ(budget.used(), 0u);
  // What was in flight is kept whatever the limit: it has been accepted.
  path.hold(true);
  TestBio flown[2]{{Op::Write, {0}, {8}}, {Op::Write, {8}, {8}}};
  for (TestBio& bio : flown) device.submit(bio);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(path.complete_next(EIO));
  EXPECT_FALSE(flown[0].done() || flown[1].done());
  EXPECT_EQ(budget.used(), 8192u);
  ASSERT_TRUE(target.message(std::vector<std::string>{"fail_if_no_path"}));
  EXPECT_TRUE(flown[0].done() && flown[1].done());
  EXPECT_EQ(budget.used(), 0u);
  std::vector<std::shared_ptr<Table>> tables;
  MutexLock lock(device.command_mutex());
  tables = device.retire();
}

TEST_F(Multipath, NoPathTimeout) {
  start("5 no_path_timeout 30 queue_if_no_path queue_mode bio 0 1 1 round-robin 0 1 1 p1 1");
  EXPECT_EQ(table(),
            "6 queue_if_no_path retain_attached_hw_handler no_path_timeout 30 queue_mode bio 0 1 1 "
            "round-robin 0 1 1 p1 1 ");
  EXPECT_EQ(rig_.clock().pending(), 0u);
  ASSERT_TRUE(say("fail_path p1"));
  rig_.clock().advance(seconds(20));
  auto w = rig_.write(0, 1);
  rig_.clock().advance(milliseconds(9999));
  EXPECT_FALSE(w->done());
  rig_.clock().advance(milliseconds(1));
  EXPECT_EQ(w->error(), EIO);
  EXPECT_TRUE(w->done());
  EXPECT_EQ(events(), 2u);
  EXPECT_EQ(rig_.write(0, 1)->error(), EIO);
  // A path that is back brings the queueing back.
  ASSERT_TRUE(say("reinstate_path p1"));
  EXPECT_EQ(rig_.write(0, 1)->error(), 0);
  ASSERT_TRUE(say("fail_path p1"));
  auto again = rig_.write(0, 1);
  EXPECT_FALSE(again->done());
  // One that is back in time stops the clock.
  rig_.clock().advance(seconds(29));
  ASSERT_TRUE(say("reinstate_path p1"));
  EXPECT_EQ(again->error(), 0);
  ASSERT_TRUE(say("fail_path p1"));
  auto third = rig_.write(0, 1);
  rig_.clock().advance(seconds(29));
  EXPECT_FALSE(third->done());
  // It does not run while suspended, and begins anew.
  ASSERT_TRUE(rig_.suspend(kNoflush));
  rig_.clock().advance(seconds(1000));
  ASSERT_TRUE(rig_.resume());
  rig_.clock().advance(seconds(29));
  EXPECT_FALSE(third->done());
  rig_.clock().advance(seconds(1));
  EXPECT_EQ(third->error(), EIO);
  EXPECT_TRUE(third->done());
  // Nothing but a message queues if the table does not say so.
  ASSERT_TRUE(say("fail_if_no_path"));
  ASSERT_TRUE(say("reinstate_path p1"));
  ASSERT_TRUE(say("fail_path p1"));
  EXPECT_EQ(rig_.write(0, 1)->error(), EIO);
}

// ---- suspends -----------------------------------------------------------------------------------

TEST_F(Multipath, ASuspendThatFlushesFailsWhatIsQueued) {
  start(kQueueing);
  ASSERT_TRUE(say("fail_path p1"));
  ASSERT_TRUE(say("fail_path p2"));
  auto w = rig_.write(0, 1);
  ASSERT_TRUE(rig_.suspend());
  EXPECT_EQ(w->error(), EIO);
  EXPECT_TRUE(w->done());
  ASSERT_TRUE(rig_.resume());
  auto next = rig_.write(0, 1);
  EXPECT_FALSE(next->done());  // it queues again
  ASSERT_TRUE(say("reinstate_path p1"));
  EXPECT_EQ(next->error(), 0);
}

TEST_F(Multipath, WithNoflushItIsPushedBack) {
  start(kQueueing);
  ASSERT_TRUE(say("fail_path p1"));
  ASSERT_TRUE(say("fail_path p2"));
  auto w = rig_.write(0, 1), r = rig_.read(1, 1);
  ASSERT_TRUE(rig_.suspend(kNoflush));
  EXPECT_FALSE(w->done() || r->done());
  EXPECT_EQ(device().held_count(), 2u);
  EXPECT_EQ(device().in_flight(), 0);
  // Queued again, and again; then let go.
  ASSERT_TRUE(rig_.resume());
  EXPECT_FALSE(w->done() || r->done());
  ASSERT_TRUE(rig_.suspend(kNoflush));
  ASSERT_TRUE(rig_.resume());
  ASSERT_TRUE(say("reinstate_path p2"));
  EXPECT_EQ(w->error(), 0);
  EXPECT_EQ(r->error(), 0);
  EXPECT_TRUE(w->done() && r->done());
}

TEST_F(Multipath, RequestModeKeepsItsQueueingThroughANoflushSuspend) {
  start("1 queue_if_no_path 0 1 1 round-robin 0 1 1 p1 1");
  ASSERT_TRUE(say("fail_path p1"));
  auto w = rig_.write(0, 1);
  ASSERT_TRUE(rig_.suspend(kNoflush));
  EXPECT_EQ(device().held_count(), 1u);
  EXPECT_EQ(table(), "1 queue_if_no_path 0 1 1 round-robin 0 1 1 p1 1 ");
  ASSERT_TRUE(rig_.resume());
  EXPECT_FALSE(w->done());
  ASSERT_TRUE(rig_.suspend());
  EXPECT_EQ(table(), "0 0 1 1 round-robin 0 1 1 p1 1 ");
  EXPECT_EQ(w->error(), EIO);
}

TEST_F(Multipath, ANewTableGetsWhatWasQueued) {
  start(kQueueing);
  ASSERT_TRUE(say("fail_path p1"));
  ASSERT_TRUE(say("fail_path p2"));
  std::vector<std::shared_ptr<TestBio>> writes;
  for (uint64_t i = 0; i < 50; ++i) writes.push_back(rig_.write(i, 1, 'N'));
  ASSERT_TRUE(load("3 queue_if_no_path queue_mode bio 0 1 1 round-robin 0 1 1 p3 1"));
  ASSERT_TRUE(rig_.suspend(kNoflush));
  EXPECT_EQ(device().held_count(), 50u);
  ASSERT_TRUE(rig_.resume());
  for (auto& write : writes) {
    EXPECT_TRUE(write->done());
    EXPECT_EQ(write->error(), 0);
  }
  EXPECT_EQ(seen("p3"), 50u);
  EXPECT_EQ(seen("p1") + seen("p2"), 0u);
  EXPECT_TRUE(rig_.read(0, 50)->holds('N', 0));
}

TEST_F(Multipath, WhatFailsDuringANoflushSuspendIsPushedBack) {
  start(kOneGroup);
  file("p1").hold(true);
  file("p2").hold(true);
  auto one = rig_.write(0, 1), two = rig_.write(1, 1);
  auto suspended = suspending(kNoflush);
  ASSERT_TRUE(file("p1").complete_next(EIO));  // goes on to p2
  EXPECT_EQ(file("p2").held(), 2u);
  ASSERT_TRUE(file("p2").complete_next(EIO));
  ASSERT_TRUE(file("p2").complete_next(EIO));
  EXPECT_TRUE(suspended.get());
  EXPECT_FALSE(one->done() || two->done());
  ASSERT_TRUE(load("2 queue_mode bio 0 1 1 round-robin 0 1 1 p3 1"));
  ASSERT_TRUE(rig_.resume());
  EXPECT_EQ(one->error(), 0);
  EXPECT_EQ(two->error(), 0);
  EXPECT_TRUE(one->done() && two->done());
}

TEST_F(Multipath, AnInterruptedNoflushSuspendLeavesItQueueing) {
  start(kQueueing);
  file("p1").hold(true);
  file("p2").fail_all(EIO);
  auto inside = rig_.write(0, 1);
  auto queued = rig_.write(1, 1);  // p2 has failed it, and p1 holds it
  CancelToken cancel;
  auto suspended = suspending(kNoflush, &cancel);
  cancel.cancel();
  EXPECT_EQ(suspended.get().error().code, EINTR);
  EXPECT_EQ(table(),
            "4 queue_if_no_path retain_attached_hw_handler queue_mode bio 0 1 1 round-robin 0 2 1 p1 1 "
            "p2 1 ");
  while (file("p1").complete_next(EIO)) {
  }
  EXPECT_FALSE(inside->done() || queued->done());
  file("p1").hold(false);
  ASSERT_TRUE(say("reinstate_path p1"));
  EXPECT_EQ(inside->error(), 0);
  EXPECT_EQ(queued->error(), 0);
}

TEST_F(Multipath, WhoeverWaitsIsKilled) {
  start(kQueueing);
  ASSERT_TRUE(say("fail_path p1"));
  ASSERT_TRUE(say("fail_path p2"));
  auto one = rig_.write(0, 1), two = rig_.write(1, 1);
  EXPECT_TRUE(device().cancel_held(*one, EINTR));
  EXPECT_EQ(one->error(), EINTR);
  EXPECT_FALSE(two->done());
  TestBio late(Op::Read, {0}, {1});
  EXPECT_FALSE(device().cancel_held(late, EINTR));
  device().submit(late);
  EXPECT_EQ(late.error(), EINTR);
  EXPECT_EQ(device().fail_held(ENXIO), 1u);
  EXPECT_EQ(two->error(), ENXIO);
  // What was cancelled below fails no path.
  ASSERT_TRUE(say("reinstate_path p1"));
  file("p1").hold(true);
  auto below = rig_.write(0, 1);
  EXPECT_FALSE(device().cancel_held(*below, EINTR));
  ASSERT_TRUE(file("p1").complete_next(EINTR));
  EXPECT_EQ(below->error(), EINTR);
  EXPECT_EQ(status(), "2 0 0 0 1 1 A 0 2 0 p1 A 1 p2 F 1 ");
}

// Paths come and go, the device is suspended, writers write: nothing is lost, nobody sees an error.
TEST_F(Multipath, AllAtOnce) {
  start(kQueueing);
  std::atomic<bool> stop{false};
  std::atomic<unsigned> ended{0};
  auto writer = [&](uint64_t at) {
    while (!stop) {
      TestBio bio(Op::Write, {at}, {4});
      device().submit(bio);
      while (!bio.done()) std::this_thread::yield();
      EXPECT_EQ(bio.error(), 0);
      ++ended;
    }
  };
  std::thread one(writer, 0), two(writer, 10), three(writer, 20);
  for (int i = 0; i < 300 || ended < 100; ++i) {
    const char* path = i % 2 ? "p1" : "p2";
    if (i % 3 == 0) file(path).fail_nth(2, EIO);
    ASSERT_TRUE(say(std::string("fail_path ") + path));
    if (i % 5 == 0) {
      ASSERT_TRUE(rig_.suspend(kNoflush));
      ASSERT_TRUE(rig_.resume());
    }
    std::this_thread::yield();
    ASSERT_TRUE(say("reinstate_path p1"));
    ASSERT_TRUE(say("reinstate_path p2"));
  }
  stop = true;
  while (device().in_flight() > 0) {
    ASSERT_TRUE(say("reinstate_path p1"));
    std::this_thread::yield();
  }
  one.join();
  two.join();
  three.join();
  EXPECT_EQ(device().held().count, 0u);
}

}  // namespace
}  // namespace dmfs::test
