// SPDX-License-Identifier: Apache-2.0
// The path selectors of multipath: what every one has to do, and how each chooses.
#include <gtest/gtest.h>
#include <sched.h>

#include <map>
#include <thread>

#include "core/base/args.h"
#include "core/targets/multipath/path_selector.h"
#include "tests/support/fake_clock.h"

namespace dmfs::test {
namespace {

using std::chrono::milliseconds;

class SelectorRig {
 public:
  // `paths`: the arguments of each path.
  Status make(const std::string& name, const std::string& args, std::vector<std::string> paths) {
    type_ = path_selectors().find(name);
    if (!type_) return Error{EINVAL, "no such selector"};
    DM_TRY(selector_, type_->create(clock_, *split_args(args)));
    for (const std::string& path : paths) {
      if (Status added = selector_->add_path(*split_args(path)); !added) return added;
    }
    return {};
  }
  // Selects and counts in, as the target does.
  int start(uint64_t bytes = 4096) {
    int path = selector_->select(bytes);
    if (path != PathSelector::kNone) selector_->start_io(static_cast<unsigned>(path), bytes);
    return path;
  }
  void end(int path, Clock::Time started, uint64_t bytes = 4096) {
    selector_->end_io(static_cast<unsigned>(path), bytes, started);
  }
  // One after the other.
  std::string picks(int count) {
    std::string text;
    for (int i = 0; i < count; ++i) {
      Clock::Time now = clock_.now();
      int path = start();
      text += path == PathSelector::kNone ? std::string("-") : std::to_string(path);
      if (path != PathSelector::kNone) end(path, now);
    }
    return text;
  }
  PathSelector& selector() { return *selector_; }
  const PathSelectorType& type() const { return *type_; }
  FakeClock& clock() { return clock_; }

 private:
  FakeClock clock_;
  const PathSelectorType* type_ = nullptr;
  std::unique_ptr<PathSelector> selector_;
};

// ---- every one ---------------------------------------------------------------------------------

// The name and the arguments of four paths.
using Case = std::pair<const char*, std::vector<std::string>>;

class EverySelector : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override { ASSERT_TRUE(rig_.make(GetParam().first, "", GetParam().second)); }
  PathSelector& selector() { return rig_.selector(); }
  SelectorRig rig_;
};

TEST_P(EverySelector, SelectsOnlyWhatHasNotFailed) {
  selector().fail_path(1);
  selector().fail_path(3);
  for (char c : rig_.picks(20)) EXPECT_TRUE(c == '0' || c == '2') << c;
  selector().fail_path(0);
  EXPECT_EQ(rig_.picks(5), "22222");
  selector().fail_path(2);
  EXPECT_EQ(rig_.picks(3), "---");
  selector().reinstate_path(1);
  EXPECT_EQ(rig_.picks(5), "11111");
  selector().reinstate_path(0);
  for (char c : rig_.picks(20)) EXPECT_TRUE(c == '0' || c == '1') << c;
}

TEST_P(EverySelector, WithoutPathsThereIsNone) {
  SelectorRig empty;
  ASSERT_TRUE(empty.make(GetParam().first, "", {}));
  EXPECT_EQ(empty.picks(2), "--");
}

TEST_P(EverySelector, PrintsAsManyWordsAsItSays) {
  auto words = [](const std::string& text) { return split_args(text)->size(); };
  auto args = *split_args(selector().args());
  ASSERT_FALSE(args.empty());
  EXPECT_EQ(args[0], std::to_string(args.size() - 1));
  for (unsigned path = 0; path < 4; ++path) {
    EXPECT_EQ(words(selector().path_table(path)), rig_.type().table_args);
    EXPECT_EQ(words(selector().path_info(path)), rig_.type().info_args);
  }
}

TEST_P(EverySelector, TakesWhatItPrints) {
  auto args = *split_args(selector().args());
  std::vector<std::string> paths;
  for (unsigned path = 0; path < 4; ++path) paths.push_back(selector().path_table(path));
  SelectorRig again;
  std::string printed;
  for (size_t i = 1; i < args.size(); ++i) printed += args[i] + " ";
  ASSERT_TRUE(again.make(GetParam().first, printed, paths));
  EXPECT_EQ(again.selector().args(), selector().args());
  for (unsigned path = 0; path < 4; ++path) {
    EXPECT_EQ(again.selector().path_table(path), paths[path]);
  }
}

TEST_P(EverySelector, ManyThreadsAtATime) {
  std::atomic<bool> stop{false};
  auto user = [&] {
    while (!stop) {
      Clock::Time now = rig_.clock().now();
      int path = rig_.start();
      EXPECT_LT(path, 4);
      EXPECT_NE(path, PathSelector::kNone);
      if (path != PathSelector::kNone) rig_.end(path, now);
      (void)selector().path_info(0);
    }
  };
  std::thread one(user), two(user);
  for (int i = 0; i < 500; ++i) {
    selector().fail_path(1);
    selector().fail_path(2);
    selector().reinstate_path(2);
    selector().reinstate_path(1);
  }
  stop = true;
  one.join();
  two.join();
}

TEST_P(EverySelector, RefusesArgumentsThatAreNone) {
  bool affinity = std::string(GetParam().first) == "io-affinity";
  for (const char* bad : {"x", "-1", "4294967296", "1 2 3"}) {
    SelectorRig rig;
    if (affinity && std::string(bad) == "4294967296") continue;  // too many digits, below
    Status made = rig.make(GetParam().first, "", {bad});
    ASSERT_FALSE(made) << bad;
    EXPECT_EQ(made.error().code, EINVAL);
    EXPECT_TRUE(made.error().message.starts_with(std::string(GetParam().first) + " ps: "))
        << made.error().message;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, EverySelector,
    ::testing::Values(Case{"round-robin", {"1", "1", "", "1"}}, Case{"queue-length", {"1", "0", "", "7"}},
                      Case{"service-time", {"1 1", "1 1", "", "1"}},
                      Case{"historical-service-time", {"1", "", "2", "1"}},
                      Case{"io-affinity", {"1", "2", "4", "fffffff8"}}),
    [](const auto& param) {
      std::string name = param.param.first;
      std::erase(name, '-');
      return name;
    });

TEST(PathSelectors, AreFive) {
  std::vector<std::string> names;
  for (const auto& [name, type] : path_selectors().all()) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{"historical-service-time", "io-affinity",
                                             "queue-length", "round-robin", "service-time"}));
  EXPECT_EQ(path_selectors().find("round"), nullptr);
}

// ---- round-robin -------------------------------------------------------------------------------

TEST(RoundRobin, EachInTurn) {
  SelectorRig rig;
  ASSERT_TRUE(rig.make("round-robin", "5", {"3", "1", "0"}));
  EXPECT_EQ(rig.picks(7), "0120120");
  EXPECT_EQ(rig.selector().path_table(0), "1");  // more than 1 is 1
  EXPECT_EQ(rig.selector().path_table(2), "0");
  EXPECT_EQ(rig.selector().args(), "0");
  rig.selector().fail_path(1);
  EXPECT_EQ(rig.picks(3), "202");
  rig.selector().reinstate_path(1);  // it is the next
  EXPECT_EQ(rig.picks(4), "1021");
}

// ---- queue-length ------------------------------------------------------------------------------

TEST(QueueLength, TheShortestQueue) {
  SelectorRig rig;
  ASSERT_TRUE(rig.make("queue-length", "", {"", "1", "128"}));
  EXPECT_EQ(rig.selector().path_table(2), "1");
  EXPECT_EQ(rig.picks(6), "012012");
  Clock::Time now = rig.clock().now();
  EXPECT_EQ(rig.start(), 0);
  EXPECT_EQ(rig.start(), 1);
  EXPECT_EQ(rig.start(), 2);
  EXPECT_EQ(rig.selector().path_info(1), "1");
  rig.end(1, now);
  EXPECT_EQ(rig.start(), 1);
  rig.end(2, now);
  rig.end(1, now);
  // 1 and 2 are empty; 2 has been used less lately.
  EXPECT_EQ(rig.start(), 2);
  rig.selector().fail_path(1);
  rig.selector().fail_path(2);
  EXPECT_EQ(rig.start(), 0);
  EXPECT_EQ(rig.selector().path_info(0), "2");
  rig.selector().reinstate_path(1);
  EXPECT_EQ(rig.start(), 1);
}

// ---- service-time ------------------------------------------------------------------------------

TEST(ServiceTime, TheFewestBytes) {
  SelectorRig rig;
  ASSERT_TRUE(rig.make("service-time", "", {"", "1"}));
  EXPECT_EQ(rig.selector().path_table(0), "1 1");
  EXPECT_EQ(rig.picks(4), "0101");
  Clock::Time now = rig.clock().now();
  EXPECT_EQ(rig.start(65536), 0);
  EXPECT_EQ(rig.start(512), 1);
  EXPECT_EQ(rig.start(512), 1);
  EXPECT_EQ(rig.selector().path_info(0), "65536 1");
  EXPECT_EQ(rig.selector().path_info(1), "1024 1");
  rig.end(0, now, 65536);
  EXPECT_EQ(rig.start(512), 0);
}

TEST(ServiceTime, ByThroughput) {
  SelectorRig rig;
  ASSERT_TRUE(rig.make("service-time", "", {"1 10", "1 100"}));
  EXPECT_EQ(rig.picks(4), "1111");
  std::map<int, int> started;
  for (int i = 0; i < 110; ++i) ++started[rig.start(4096)];
  EXPECT_EQ(started[0], 10);
  EXPECT_EQ(started[1], 100);
}

TEST(ServiceTime, APathWithoutThroughputIsTheLast) {
  SelectorRig rig;
  ASSERT_TRUE(rig.make("service-time", "", {"1 0", "1 1"}));
  EXPECT_EQ(rig.start(1 << 30), 1);
  EXPECT_EQ(rig.start(1 << 30), 1);
  rig.selector().fail_path(1);
  EXPECT_EQ(rig.start(), 0);
}

TEST(ServiceTime, ThroughputIsAtMost100) {
  SelectorRig rig;
  EXPECT_EQ(rig.make("service-time", "", {"1 101"}).error().message,
            "service-time ps: invalid relative_throughput value: '101'");
  EXPECT_EQ(rig.make("service-time", "", {"x 1"}).error().message,
            "service-time ps: invalid repeat count: 'x'");
  EXPECT_EQ(rig.make("service-time", "", {"1 1 1"}).error().message,
            "service-time ps: incorrect number of arguments: '1'");
}

// ---- historical-service-time -------------------------------------------------------------------

class Historical : public ::testing::Test {
 protected:
  // A request on each of the paths, which take these times.
  void teach(std::vector<milliseconds> times) {
    Clock::Time now = rig_.clock().now();
    for (size_t i = 0; i < times.size(); ++i) rig_.selector().start_io(static_cast<unsigned>(i), 0);
    milliseconds at{0};
    for (size_t i = 0; i < times.size(); ++i) {
      rig_.clock().advance(times[i] - at);
      at = times[i];
      rig_.end(static_cast<int>(i), now);
    }
  }
  SelectorRig rig_;
};

TEST_F(Historical, ArgumentsAndStatus) {
  ASSERT_TRUE(rig_.make("historical-service-time", "", {"", "2"}));
  EXPECT_EQ(rig_.selector().args(), "2 972 0");
  EXPECT_EQ(rig_.selector().path_table(1), "0");
  EXPECT_EQ(rig_.selector().path_info(1), "1024 0 0");
  ASSERT_TRUE(rig_.make("historical-service-time", "512 2", {"1"}));
  EXPECT_EQ(rig_.selector().args(), "2 512 2");
  ASSERT_TRUE(rig_.make("historical-service-time", "0", {"1"}));
  EXPECT_EQ(rig_.selector().args(), "2 0 0");
  for (const char* bad : {"1024", "x", "1 x", "1 2 3"}) {
    EXPECT_FALSE(rig_.make("historical-service-time", bad, {})) << bad;
  }
}

TEST_F(Historical, AMovingAverage) {
  // With a weight of 1/2 each request counts as much as all before it.
  ASSERT_TRUE(rig_.make("historical-service-time", "512", {""}));
  constexpr uint64_t kMs = 1000000;
  auto average = [&] { return std::stoull(rig_.selector().path_info(0)) / 1024; };
  teach({milliseconds(8)});
  EXPECT_EQ(average(), 4 * kMs);
  teach({milliseconds(8)});
  EXPECT_EQ(average(), 6 * kMs);
  // Of 20 ms it is the second bucket: 1/4 of what was.
  teach({milliseconds(20)});
  EXPECT_EQ(average(), 6 * kMs / 4 + 15 * kMs);
  // So long that nothing of what was counts.
  teach({milliseconds(2000)});
  EXPECT_EQ(average(), 2000 * kMs);
}

TEST_F(Historical, TheFasterPathGetsMore) {
  ASSERT_TRUE(rig_.make("historical-service-time", "512", {"", ""}));
  teach({milliseconds(1), milliseconds(10)});
  teach({milliseconds(1)});
  // Of two idle ones that which has been idle for longer is asked, so that neither is forgotten.
  EXPECT_EQ(rig_.start(), 0);
  std::map<int, int> started;
  for (int i = 0; i < 40; ++i) ++started[rig_.start()];
  EXPECT_GT(started[0], 4 * started[1]);
  EXPECT_GT(started[1], 0);
}

TEST_F(Historical, AThresholdMakesThemEqual) {
  ASSERT_TRUE(rig_.make("historical-service-time", "512 20", {"", ""}));
  teach({milliseconds(1), milliseconds(10)});
  std::map<int, int> started;
  for (int i = 0; i < 40; ++i) ++started[rig_.start()];
  EXPECT_EQ(started[0], 20);
}

// What is known of the faster one is long past.
TEST_F(Historical, AStaleWinnerGetsNoMore) {
  ASSERT_TRUE(rig_.make("historical-service-time", "512", {"", ""}));
  teach({milliseconds(1), milliseconds(10)});
  std::map<int, int> started;
  for (int i = 0; i < 40; ++i) ++started[rig_.start()];
  EXPECT_EQ(started[0], 20);
}

TEST_F(Historical, AStalePathIsTriedAgain) {
  ASSERT_TRUE(rig_.make("historical-service-time", "512", {"", ""}));
  teach({milliseconds(1), milliseconds(10)});
  teach({milliseconds(1)});
  EXPECT_EQ(rig_.start(), 0);
  EXPECT_EQ(rig_.start(), 0);
  rig_.clock().advance(milliseconds(1000));
  EXPECT_EQ(rig_.start(), 1);
}

// ---- io-affinity -------------------------------------------------------------------------------

TEST(IoAffinity, ThePathOfTheCpu) {
  SelectorRig rig;
  ASSERT_TRUE(rig.make("io-affinity", "", {"1", "ffffffff,fffffffe"}));
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  int last = -1;
  for (int cpu = 0; cpu < 64; ++cpu) {
    if (!CPU_ISSET(cpu, &before)) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(rig.picks(3), cpu == 0 ? "000" : "111");
    last = cpu;
  }
  if (last >= 0) {
    unsigned own = last == 0 ? 0 : 1;
    EXPECT_EQ(rig.selector().path_info(0), "0");
    rig.selector().fail_path(own);
    EXPECT_EQ(rig.picks(1), own == 0 ? "1" : "0");
    EXPECT_EQ(rig.selector().path_info(0), "0");  // it has a path, which has failed
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

TEST(IoAffinity, ACpuWithoutPathTakesAnyAndIsCounted) {
  SelectorRig rig;
  std::string far = "80000000";
  for (int i = 0; i < 31; ++i) far += ",00000000";
  ASSERT_TRUE(rig.make("io-affinity", "", {far}));
  EXPECT_EQ(rig.selector().path_table(0), far);
  EXPECT_EQ(rig.picks(3), "000");
  EXPECT_EQ(rig.selector().path_info(0), "3");
}

TEST(IoAffinity, Masks) {
  for (auto [mask, printed] : std::map<std::string, std::string>{
           {"1", "1"}, {"0F", "f"}, {"00000000,00000003", "3"}, {"1,2", "1,00000002"}}) {
    SelectorRig rig;
    ASSERT_TRUE(rig.make("io-affinity", "", {mask})) << mask;
    EXPECT_EQ(rig.selector().path_table(0), printed);
  }
  std::string too_far = "1";
  for (int i = 0; i < 32; ++i) too_far += ",00000000";
  for (const std::string& bad : {std::string("1g"), std::string(",1"), std::string("1,"),
                                 std::string("123456789"), std::string("0x1"), too_far}) {
    SelectorRig rig;
    Status made = rig.make("io-affinity", "", {bad});
    ASSERT_FALSE(made) << bad;
    EXPECT_EQ(made.error().message, "io-affinity ps: invalid cpumask: '" + bad + "'");
  }
  SelectorRig rig;
  EXPECT_EQ(rig.make("io-affinity", "", {"0"}).error().message,
            "io-affinity ps: No new/valid CPU mapping found: '0'");
  EXPECT_EQ(rig.make("io-affinity", "", {"3", "2"}).error().message,
            "io-affinity ps: No new/valid CPU mapping found: '2'");
  EXPECT_EQ(rig.make("io-affinity", "", {""}).error().message,
            "io-affinity ps: invalid number of arguments");
}

}  // namespace
}  // namespace dmfs::test
