// SPDX-License-Identifier: Apache-2.0
// multipath's table line: every refusal, every feature, and what is printed. Expectations are those
// of a real kernel (golden f-multipath, b-errors).
#include "tests/support/targets_fixture.h"

namespace dmfs::test {
namespace {

class MultipathArgs : public TargetsFixture {
 protected:
  std::string refusal(const std::string& line) {
    auto made = try_make({2048}, "multipath", line.c_str());
    return made ? "accepted" : made.error().message;
  }
  std::string printed(const std::string& line) {
    auto made = try_make({2048}, "multipath", line.c_str());
    return made ? (*made)->table_line() : made.error().message;
  }
};

TEST_F(MultipathArgs, Refusals) {
  const std::string bio = "2 queue_mode bio 0 1 1 ";
  const std::pair<std::string, const char*> cases[] = {
      {"", "multipath: invalid number of feature args"},
      {"x", "multipath: invalid number of feature args: 'x'"},
      {"1", "multipath: invalid number of feature args: '1'"},
      {"11 a a a a a a a a a a a 0 0 0", "multipath: invalid number of feature args: '11'"},
      {"0", "multipath: invalid number of hardware handler args"},
      {"0 1", "multipath: invalid number of hardware handler args: '1'"},
      {"0 1025", "multipath: invalid number of hardware handler args: '1025'"},
      {"0 0", "multipath: invalid number of priority groups"},
      {"0 0 1025 1", "multipath: invalid number of priority groups: '1025'"},
      {"0 0 0", "multipath: invalid initial priority group number"},
      {"0 0 1", "multipath: invalid initial priority group number"},
      {"0 0 1 1025", "multipath: invalid initial priority group number: '1025'"},
      {"0 0 1 0", "multipath: invalid initial priority group: '0'"},
      {"0 0 0 1", "multipath: invalid initial priority group: '1'"},
      {"0 0 1 2", "multipath: priority group count mismatch: 0 of 1"},
      {"0 0 1 1 round-robin", "multipath: not enough priority group arguments"},
      {"0 0 1 1 round-robin 0", "multipath: invalid number of paths"},
      {"0 0 1 1 round-robin 2 x", "multipath: invalid number of path selector args: '2'"},
      {"0 0 1 1 round-robin 0 1", "multipath: invalid number of selector args"},
      {"0 0 1 1 round-robin 0 1 0", "multipath: not enough path parameters"},
      {"0 0 1 1 round-robin 0 0 0", "multipath: invalid number of paths: '0'"},
      {"0 0 1 1 round-robin 0 1025 0", "multipath: invalid number of paths: '1025'"},
      {"0 0 1 1 round-robin 0 1 1 a", "multipath: not enough path parameters"},
      {"0 0 1 1 nosuch 0 1 1 a 1", "multipath: unknown path selector type: 'nosuch'"},
      {bio + "round-robin 0 1 1 a x", "multipath: round-robin ps: invalid repeat count: 'x'"},
      {bio + "round-robin 0 1 2 a 1 2",
       "multipath: round-robin ps: incorrect number of arguments: '2'"},
      {bio + "round-robin 0 2 1 a 1000", "multipath: not enough path parameters"},
      {bio + "historical-service-time 1 1024 1 0 a",
       "multipath: path selector constructor failed: historical-service-time ps: invalid base weight: "
       "'1024'"},
      {bio + "io-affinity 0 1 0 a", "multipath: io-affinity ps: invalid number of arguments"},
      {bio + "round-robin 0 1 1 nosuch 1",
       "multipath: error getting device: 'nosuch': No such file or directory"},
      {"2 queue_mode bio 0 2 1 round-robin 0 1 1 a 1",
       "multipath: priority group count mismatch: 1 of 2"},
      {bio + "round-robin 0 1 1 a 1 round-robin 0 1 1 b 1",
       "multipath: priority group count mismatch: 2 of 1"},
      {"2 queue_mode bad 0 0 0", "multipath: Unknown 'queue_mode' requested: 'bad'"},
      {"1 queue_mode 0 0 0", "multipath: Unrecognised multipath feature request: 'queue_mode'"},
      {"1 no_path_retry 0 0 0", "multipath: Unrecognised multipath feature request: 'no_path_retry'"},
      {"2 pg_init_retries 51 0 0 0", "multipath: pg_init_retries must be between 1 and 50: '51'"},
      {"2 pg_init_retries 0 0 0 0", "multipath: pg_init_retries must be between 1 and 50: '0'"},
      {"2 pg_init_delay_msecs 60001 0 0 0",
       "multipath: pg_init_delay_msecs must be between 0 and 60000: '60001'"},
      {"2 no_path_timeout 0 0 0 0", "multipath: no_path_timeout must be between 1 and 86400: '0'"},
      {"0 1 nosuchhandler 0 0",
       "multipath: error attaching hardware handler: unknown hardware handler 'nosuchhandler'"},
      {"2 queue_mode bio 2 emc 1 1 round-robin 0 1 1 a 1",
       "multipath: invalid initial priority group number: 'round-robin'"},
  };
  for (const auto& [line, text] : cases) EXPECT_EQ(refusal(line), text) << line;
  EXPECT_EQ(try_make({2048}, "multipath", "2 queue_mode bio 0 1 1 round-robin 0 1 1 nosuch 1")
                .error()
                .code,
            ENOENT);
}

TEST_F(MultipathArgs, Features) {
  const std::string tail = "0 1 1 round-robin 0 1 1 a 1 ";
  const std::pair<const char*, const char*> cases[] = {
      {"0 ", "0 "},
      {"1 queue_if_no_path ", "1 queue_if_no_path "},
      {"1 QUEUE_IF_NO_PATH ", "1 queue_if_no_path "},
      {"2 queue_if_no_path queue_if_no_path ", "1 queue_if_no_path "},
      {"1 retain_attached_hw_handler ", "1 retain_attached_hw_handler "},
      {"2 queue_mode mq ", "0 "},
      {"2 queue_mode rq ", "0 "},
      {"2 queue_mode bio ", "3 retain_attached_hw_handler queue_mode bio "},
      {"4 queue_mode bio queue_mode bio ", "3 retain_attached_hw_handler queue_mode bio "},
      {"5 queue_mode bio queue_if_no_path pg_init_retries 5 ",
       "6 queue_if_no_path pg_init_retries 5 retain_attached_hw_handler queue_mode bio "},
      {"6 pg_init_delay_msecs 0 pg_init_retries 50 no_path_timeout 86400 ",
       "6 pg_init_retries 50 pg_init_delay_msecs 0 no_path_timeout 86400 "},
      {"4 pg_init_delay_msecs 60000 queue_mode bio ",
       "5 pg_init_delay_msecs 60000 retain_attached_hw_handler queue_mode bio "},
  };
  for (auto [given, out] : cases) {
    EXPECT_EQ(printed(given + tail), out + tail);
    EXPECT_EQ(printed(out + tail), out + tail);
  }
}

TEST_F(MultipathArgs, Selectors) {
  const std::string head = "3 retain_attached_hw_handler queue_mode bio 0 1 1 ";
  struct {
    const char *given, *out, *info;
  } cases[] = {
      {"round-robin 0 2 1 a 3 b 1", "round-robin 0 2 1 a 1 b 1 ", "E 0 2 0 a A 0 b A 0 "},
      {"round-robin 1 5 2 1 a 3 b 1", "round-robin 0 2 1 a 1 b 1 ", "E 0 2 0 a A 0 b A 0 "},
      {"queue-length 0 2 1 a 0 b 128", "queue-length 0 2 1 a 0 b 1 ", "E 0 2 1 a A 0 0 b A 0 0 "},
      {"service-time 0 2 2 a 1 10 b 1 100", "service-time 0 2 2 a 1 10 b 1 100 ",
       "E 0 2 2 a A 0 0 10 b A 0 0 100 "},
      {"historical-service-time 2 512 2 2 1 a 1 b 2",
       "historical-service-time 2 512 2 2 1 a 0 b 0 ",
       "E 2 512 2 2 3 a A 0 1024 0 0 b A 0 1024 0 0 "},
      {"io-affinity 0 2 1 a 1 b fe", "io-affinity 0 2 1 a 1 b fe ", "E 0 2 1 a A 0 0 b A 0 0 "},
  };
  for (auto [given, out, info] : cases) {
    auto target = make({2048}, "multipath", (head + given).c_str());
    ASSERT_TRUE(target);
    EXPECT_EQ(target->table_line(), head + out);
    EXPECT_EQ(target->status_line(), std::string("2 1 0 0 1 1 ") + info);
    std::string line = target->table_line();
    target.reset();  // before its context
    EXPECT_EQ(printed(line), line);
  }
}

TEST_F(MultipathArgs, AnInitialGroupThatIsNoneIsTheFirst) {
  EXPECT_EQ(printed("2 queue_mode bio 0 1 2 round-robin 0 1 1 a 1"),
            "3 retain_attached_hw_handler queue_mode bio 0 1 1 round-robin 0 1 1 a 1 ");
}

// The kernel's bio-based one takes the words of a handler and forgets them.
TEST_F(MultipathArgs, AHandlerOfABioBasedOneIsIgnored) {
  EXPECT_EQ(printed("2 queue_mode bio 2 nosuchhandler x 1 1 round-robin 0 1 1 a 1"),
            "3 retain_attached_hw_handler queue_mode bio 0 1 1 round-robin 0 1 1 a 1 ");
}

TEST_F(MultipathArgs, OpensEachPathForTheWholeLength) {
  auto target = make({100}, "multipath", "0 0 1 1 round-robin 0 2 0 a b");
  ASSERT_TRUE(target);
  std::vector<TestContext::Opened> opened{{"a", {0}, {100}}, {"b", {0}, {100}}};
  EXPECT_EQ(context_->opened(), opened);
  EXPECT_TRUE(target->supports_discard());
  file("b").set_supports_discard(false);
  EXPECT_FALSE(target->supports_discard());
}

}  // namespace
}  // namespace dmfs::test
