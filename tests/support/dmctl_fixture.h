// SPDX-License-Identifier: Apache-2.0
// Whole dmctl commands against a scripted daemon: what they send, print and return.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <deque>
#include <string>
#include <vector>

#include "cli/commands.h"

namespace dmfs::cli {

using nlohmann::json;

inline json info(const std::string& name, uint32_t minor = 0, bool live = true) {
  return {{"name", name},
          {"uuid", ""},
          {"major", 253},
          {"minor", minor},
          {"open_count", 0},
          {"event_nr", 0},
          {"target_count", 1},
          {"suspended", false},
          {"read_only", false},
          {"ordered", false},
          {"live_table", live},
          {"inactive_table", false},
          {"deferred_remove", false},
          {"read_ahead", 256},
          {"size", 8},
          {"not_activated", ""},
          {"fault", ""},
          {"held", 0}};
}

inline json table_reply(const json& device, std::vector<json> targets) {
  return {{"info", device}, {"targets", targets}};
}

inline json target(uint64_t start, uint64_t length, const std::string& type, const std::string& params) {
  return {{"start", start}, {"length", length}, {"type", type}, {"params", params}};
}

class DmctlTest : public testing::Test {
 protected:
  // The daemon's next reply. Replies are taken in order; each command must use them up.
  void answers(json reply) { replies_.push_back(std::move(reply)); }
  void refuses(int code, std::string message = "") {
    replies_.push_back(Error{code, std::move(message)});
  }

  // Runs "dmctl WORDS...".
  void dmctl(std::vector<std::string> words) {
    words.insert(words.begin(), "/usr/bin/dmctl");
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    sent_.clear();
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    auto options = parse_options(static_cast<int>(argv.size()), argv.data());
    if (options) {
      Session session(*options, [this]() -> Result<Session::Call> {
        return Session::Call(
            [this](std::string_view method, const json& params) { return reply(method, params); });
      });
      status_ = run_command(session);
    } else {
      status_ = -1;
      std::fputs(options.error().message.c_str(), stderr);
    }
    std::fflush(stdout);
    out_ = testing::internal::GetCapturedStdout();
    err_ = testing::internal::GetCapturedStderr();
    EXPECT_TRUE(replies_.empty()) << replies_.size() << " replies were not asked for";
  }

  Result<json> reply(std::string_view method, const json& params) {
    json shown = params;
    shown.erase("cwd");
    sent_.push_back(std::string(method) + " " + shown.dump());
    if (replies_.empty()) {
      ADD_FAILURE() << "unexpected " << sent_.back();
      return Error{EIO, "not scripted"};
    }
    Result<json> next = std::move(replies_.front());
    replies_.pop_front();
    return next;
  }

  std::deque<Result<json>> replies_;
  std::vector<std::string> sent_;
  std::string out_, err_;
  int status_ = -1;
};

}  // namespace dmfs::cli
