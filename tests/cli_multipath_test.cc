// SPDX-License-Identifier: Apache-2.0
// dmctl's commands for paths and for arrays that are not there.
#include <gmock/gmock.h>
#include <stdlib.h>
#include <unistd.h>

#include <fmt/format.h>

#include "tests/support/dmctl_fixture.h"

namespace dmfs::cli {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

TEST_F(DmctlTest, Paths) {
  auto path = [](const char* name, const char* state, const char* checker) {
    return json{{"name", name},   {"state", state},   {"checker", checker}, {"in_flight", 3},
                {"stale", 0},     {"fail_count", 1},  {"errors", 2},        {"latency_ns", 125000}};
  };
  json late = path("/p/2", "failed", "down: timeout");
  late["stale"] = 2;
  json groups = {{{"number", 1}, {"state", "active"}, {"selector", "round-robin 0"},
                  {"paths", {path("/p/1", "active", "up"), late}}},
                 {{"number", 2}, {"state", "enabled"}, {"selector", "queue-length 0"},
                  {"paths", {path("/p/3", "active", "")}}}};
  json target = {{"start", 0},  {"length", 2048},     {"type", "multipath"}, {"features", "queue_if_no_path"},
                 {"handler", ""}, {"queueing", true}, {"waiting", 0},        {"groups", groups}};
  json reply = {{"info", info("v", 4)}, {"targets", {target}}};
  const std::string tree =
      "v (253:4) dmfs,multipath\n"
      "size=1.0M features='queue_if_no_path' hwhandler='0' waiting=0 wp=rw\n"
      "|-+- policy='round-robin 0' status=active\n"
      "| |- /p/1 active, checker up, 3 in flight, 2 errors, failed 1 times, latency 125 us\n"
      "| `- /p/2 failed, checker down: timeout, 3 in flight (2 overdue), 2 errors, failed 1 times, "
      "latency 125 us\n"
      "`-+- policy='queue-length 0' status=enabled\n"
      "  `- /p/3 active, 3 in flight, 2 errors, failed 1 times, latency 125 us\n";
  answers(reply);
  dmctl({"paths", "v"});
  EXPECT_EQ(status_, 0);
  EXPECT_EQ(sent_[0], R"(paths {"name":"v"})");
  EXPECT_EQ(out_, tree);
  answers({{"devices", {info("v", 4), info("w", 5)}}});
  answers(reply);
  answers({{"info", info("w", 5)}, {"targets", json::array()}});
  dmctl({"paths"});
  EXPECT_EQ(status_, 0);
  EXPECT_EQ(out_, tree);
  answers({{"info", info("w", 5)}, {"targets", json::array()}});
  dmctl({"paths", "w"});
  EXPECT_EQ(status_, 1);
  EXPECT_THAT(err_, HasSubstr("no target with paths"));
  answers(reply);
  dmctl({"paths", "--json", "v"});
  EXPECT_EQ(json::parse(out_), reply);
  for (const char* what : {"fail", "reinstate"}) {
    answers(reply);
    answers({{"result", ""}});
    dmctl({std::string(what) + "-path", "v", "/p/1"});
    EXPECT_EQ(status_, 0);
    EXPECT_EQ(sent_[1], "message {\"message\":\"" + std::string(what) +
                            "_path /p/1\",\"name\":\"v\",\"sector\":0}");
  }
  dmctl({"fail-path", "v"});
  EXPECT_THAT(err_, StartsWith("Incorrect number of arguments."));
}

TEST_F(DmctlTest, LabArrayMakesPathsAndPrintsATable) {
  char file[] = "/tmp/dmctl-lab-XXXXXX";
  int fd = mkstemp(file);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(ftruncate(fd, 1 << 20), 0);
  close(fd);
  for (int i = 0; i < 4 * 3; ++i) answers(info("x"));
  dmctl({"lab", "array", "x", "--paths", "3", "--emc", "--file", file, "--size", "512K", "--create"});
  EXPECT_EQ(err_, "");
  EXPECT_EQ(status_, 0);
  EXPECT_EQ(out_, "0 1024 multipath 3 queue_if_no_path pg_init_retries 50 1 emc 2 1 "
                  "round-robin 0 2 0 x-path1 x-path2 round-robin 0 1 0 x-path3\n");
  ASSERT_EQ(sent_.size(), 12u);
  EXPECT_EQ(sent_[0], R"(create {"name":"x-path1"})");
  EXPECT_EQ(sent_[7], std::string(R"(load {"name":"x-path3","targets":[{"length":1032,"params":"x emc 3 2 )") +
                          file + R"( 0","start":0,"type":"lab"}]})");
  EXPECT_EQ(sent_[9], R"(create {"name":"x"})");
  // Too small a file; and what goes wrong half-way goes back.
  dmctl({"lab", "array", "x", "--file", file, "--size", "2M"});
  EXPECT_EQ(status_, 1);
  EXPECT_THAT(err_, HasSubstr("has 1048576 bytes, fewer than --size '2M'"));
  for (int i = 0; i < 3; ++i) answers(info("x"));
  answers(json::object());  // of the message
  refuses(EEXIST, "no");
  answers(info("x"));
  dmctl({"lab", "array", "x", "--file", file, "--slow", "20"});
  EXPECT_EQ(status_, 1);
  EXPECT_EQ(sent_[3], R"(message {"message":"slow 20","name":"x-path1","sector":0})");
  EXPECT_EQ(sent_.back(), R"(remove {"name":"x-path1"})");
  unlink(file);
}

TEST_F(DmctlTest, LabRefusals) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"lab", "fly", "x"}, "Unknown lab command 'fly'"},
      {{"lab", "array", "x", "y"}, "lab array: too many words: 'y'."},
      {{"lab", "set", "x"}, "lab set: too few words."},
      {{"lab", "array", "x", "--paths", "none"}, "Invalid --paths 'none': 1 to 64 is expected."},
      {{"lab", "array", "x", "--paths", "65"}, "Invalid --paths '65'"},
      {{"lab", "array", "x", "--controllers", "17"}, "Invalid --controllers '17'"},
      {{"lab", "array", "x", "--controllers", "5"}, "Invalid --controllers '5': there are only 4 paths."},
      {{"lab", "array", "x", "--slow", "-1"}, "Invalid --slow '-1'"},
      {{"lab", "array", "x", "--size", "1X"}, "Invalid --size '1X'"},
      {{"lab", "array", "x", "--size", "100"}, "Invalid --size '100'"},
      {{"lab", "array", "x", "--emc", "--rdac"}, "--emc and --rdac are incompatible."},
      {{"lab", "array", "x", "--file", "/nonexistent/file"}, "'/nonexistent/file': No such file or directory."},
      {{"lab", "array", std::string(120, 'x')}, "is too long for an array."}};
  for (const auto& [words, says] : cases) {
    dmctl(words);
    EXPECT_EQ(status_, 1);
    EXPECT_THAT(err_, HasSubstr(says));
    EXPECT_TRUE(sent_.empty());
  }
  answers({{"devices", json::array({info("x-pathology"), info("x-path1", 1)})}});
  answers(table_reply(info("x-path1", 1), {target(0, 8, "zero", "")}));
  dmctl({"lab", "show", "x"});
  EXPECT_EQ(status_, 1);
  EXPECT_THAT(err_, HasSubstr("There is no array 'x'."));
  // Elsewhere they are no options.
  dmctl({"info", "--paths", "3"});
  EXPECT_NE(status_, 0);
}

TEST_F(DmctlTest, LabSetShowAndRemove) {
  answers({{"result", ""}});
  dmctl({"lab", "set", "x-path1", "flap", "10", "20"});
  EXPECT_EQ(status_, 0) << err_;
  EXPECT_THAT(sent_, ElementsAre(R"(message {"message":"flap 10 20","name":"x-path1","sector":0})"));
  json list = {{"devices", json::array({info("x"), info("x-path10", 2), info("x-path2", 1)})}};
  json whole = table_reply(info("x"), {target(0, 8, "multipath", "0")});
  auto path = [](unsigned number, unsigned controller) {
    return table_reply(info("x-path" + std::to_string(number)),
                       {target(0, 16, "lab", fmt::format("x emc {} {} f 0", number, controller))});
  };
  auto status = [](const std::string& text) {
    return table_reply(info("p"), {target(0, 16, "lab", text)});
  };
  for (const json& reply : {list, whole, path(10, 2), path(2, 1), status("good active 1 1 3 0"),
                            status("hang ghost 2 1 3 7")}) {
    answers(reply);
  }
  dmctl({"lab", "show", "x"});
  EXPECT_EQ(status_, 0) << err_;
  EXPECT_EQ(out_, "x: emc, controller 1 owns the unit, moved 3 times\n"
                  "  x-path2  controller 1  active         good\n"
                  "  x-path10  controller 2  ghost          hang  7 held\n");
  for (const json& reply : {list, whole, path(10, 2), path(2, 1)}) answers(reply);
  for (int i = 0; i < 3; ++i) answers(info("x"));
  dmctl({"lab", "remove", "x"});
  EXPECT_EQ(status_, 0) << err_;
  EXPECT_EQ(sent_[4], R"(remove {"name":"x"})");
  EXPECT_EQ(sent_[5], R"(remove {"name":"x-path2"})");
  EXPECT_EQ(sent_[6], R"(remove {"name":"x-path10"})");
}

}  // namespace
}  // namespace dmfs::cli
