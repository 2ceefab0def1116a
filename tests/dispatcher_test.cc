// SPDX-License-Identifier: Apache-2.0
// JSON-RPC onto the real device manager: every method, what it refuses, and mutated requests.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <future>
#include <random>

#include "core/base/executor.h"
#include "core/control/client.h"
#include "core/control/dispatcher.h"
#include "core/control/protocol.h"
#include "core/control/server.h"
#include "core/dm/device_manager.h"
#include "core/io/io_service.h"
#include "core/targets/builtin.h"

namespace dmfs {
namespace {

using nlohmann::json;

// Keeps nothing: what survives a restart is the manager's test.
class ForgetfulStore final : public DeviceStore {
 public:
  Result<std::vector<StoredDevice>> load() override { return std::vector<StoredDevice>(); }
  Status commit(const std::vector<StoreChange>&) override { return {}; }
};

json zero_target(uint64_t start, uint64_t length) {
  return {{"start", start}, {"length", length}, {"type", "zero"}, {"params", ""}};
}

class DispatcherTest : public testing::Test {
 protected:
  DispatcherTest() {
    register_builtin_targets(registry_);
    manager_.emplace(DeviceManager::Options{registry_, store_, *executor_, io_, clock_});
    EXPECT_TRUE(manager_->start());
    commands_.emplace(*manager_, registry_);
    dispatcher_.emplace(
        *commands_,
        DaemonHooks{.mount = "/m", .store = "/s.db", .engine = "auto", .shutdown = [this] { return ask_to_end(); }});
    std::string pattern = std::filesystem::temp_directory_path() / "dmfs-dispatch-XXXXXX";
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = std::filesystem::canonical(pattern);
    std::ofstream(dir_ + "/disk") << std::string(1 << 20, 'd');
  }
  ~DispatcherTest() override {
    manager_->stop();
    executor_.reset();  // a deferred removal still needs the manager
    std::filesystem::remove_all(dir_);
  }

  Status ask_to_end() {
    ++shutdowns_;
    return in_use_ ? Status(Error{EBUSY, "the mount is in use"}) : Status();
  }
  json handle(const std::string& method, const json& params) {
    return dispatcher_->handle(
        {{"jsonrpc", "2.0"}, {"id", 1}, {"method", method}, {"params", params}}, token_);
  }
  // The result; a test failure and null when it is an error.
  json ok(const std::string& method, const json& params = json::object()) {
    json reply = handle(method, params);
    EXPECT_TRUE(reply.contains("result")) << method << params << ": " << reply;
    return reply.value("result", json());
  }
  // "EXXX: sentence" of a command that failed.
  std::string failure(const std::string& method, const json& params) {
    json reply = handle(method, params);
    if (!reply.contains("error")) return "no error";
    EXPECT_EQ(reply["error"]["code"], -32000) << reply;
    return reply["error"]["data"]["name"].get<std::string>() + ": " +
           reply["error"]["message"].get<std::string>();
  }
  // The sentence about bad parameters.
  std::string refusal(const std::string& method, const json& params) {
    json reply = handle(method, params);
    if (!reply.contains("error")) return "no error";
    EXPECT_EQ(reply["error"]["code"], -32602) << reply;
    EXPECT_EQ(reply["error"]["data"], json({{"errno", EINVAL}, {"name", "EINVAL"}}));
    return reply["error"]["message"];
  }
  void make_zero(const std::string& name, uint64_t length = 8) {
    ok("create", {{"name", name}});
    ok("load", {{"name", name}, {"targets", json::array({zero_target(0, length)})}});
    ok("resume", {{"name", name}});
  }

  TargetRegistry registry_;
  ForgetfulStore store_;
  std::optional<ThreadExecutor> executor_{std::in_place};
  IoService io_;
  SystemClock clock_;
  std::optional<DeviceManager> manager_;
  std::optional<Commands> commands_;
  std::optional<Dispatcher> dispatcher_;
  CancelToken token_;
  int shutdowns_ = 0;
  bool in_use_ = false;
  std::string dir_;
};

TEST_F(DispatcherTest, Version) {
  EXPECT_EQ(ok("version"), json({{"name", "dmfs"},
                                 {"version", "0.1.0"},
                                 {"driver", "4.47.0"},
                                 {"protocol", 1},
                                 {"pid", ::getpid()},
                                 {"mount", "/m"},
                                 {"store", "/s.db"},
                                 {"engine", "auto"}}));
}

TEST_F(DispatcherTest, CreateAnswersWithAllThereIsToKnow) {
  json info = ok("create", {{"name", "vol"}, {"uuid", "U-1"}, {"minor", 7}, {"read_ahead", 64}});
  EXPECT_EQ(info,
            json({{"name", "vol"},
                  {"uuid", "U-1"},
                  {"major", 253},
                  {"minor", 7},
                  {"open_count", 0},
                  {"event_nr", 0},
                  {"target_count", 0},
                  {"suspended", false},
                  {"read_only", false},
                  {"ordered", false},
                  {"live_table", false},
                  {"inactive_table", false},
                  {"deferred_remove", false},
                  {"read_ahead", 64},
                  {"size", 0},
                  {"geometry", {{"cylinders", 0}, {"heads", 0}, {"sectors", 0}, {"start", 0}}},
                  {"not_activated", ""},
                  {"fault", ""},
                  {"held", 0}}));
  EXPECT_EQ(ok("status", {{"name", "vol"}}), info);
  EXPECT_EQ(ok("status", {{"uuid", "U-1"}}), info);
  EXPECT_EQ(ok("status", {{"minor", 7}}), info);
  EXPECT_EQ(ok("create", {{"name", "other"}})["minor"], 0);
}

TEST_F(DispatcherTest, LoadResumeTable) {
  ok("create", {{"name", "vol"}});
  json linear = {{"start", 8}, {"length", 16}, {"type", "linear"}, {"params", dir_ + "/disk 4"}};
  json targets = json::array({zero_target(0, 8), linear});
  json info = ok("load", {{"name", "vol"}, {"targets", targets}, {"read_only", true}, {"ordered", true}});
  EXPECT_EQ(info["inactive_table"], true);
  EXPECT_EQ(info["live_table"], false);
  EXPECT_EQ(ok("table", {{"name", "vol"}})["targets"], json::array());
  json inactive = ok("table", {{"name", "vol"}, {"inactive", true}});
  EXPECT_EQ(inactive["targets"], targets);
  EXPECT_EQ(inactive["info"]["name"], "vol");
  info = ok("resume", {{"name", "vol"}});
  EXPECT_EQ(info["live_table"], true);
  EXPECT_EQ(info["read_only"], true);
  EXPECT_EQ(info["target_count"], 2);
  EXPECT_EQ(info["size"], 24);
  EXPECT_EQ(ok("table", {{"name", "vol"}})["targets"], targets);
  json status = ok("table_status", {{"name", "vol"}})["targets"];
  ASSERT_EQ(status.size(), 2u);
  EXPECT_EQ(status[1]["start"], 8);
  EXPECT_EQ(status[1]["params"], "");
  json deps = ok("deps", {{"name", "vol"}});
  ASSERT_EQ(deps["deps"].size(), 1u);
  EXPECT_EQ(deps["deps"][0]["path"], dir_ + "/disk");
  EXPECT_EQ(deps["deps"][0]["name"], "");
  EXPECT_EQ(deps["info"]["minor"], info["minor"]);
  EXPECT_EQ(ok("deps", {{"name", "vol"}, {"inactive", true}})["deps"], json::array());
}

TEST_F(DispatcherTest, RelativePathsGoByTheCallersDirectory) {
  ok("create", {{"name", "vol"}});
  json linear = {{"start", 0}, {"length", 16}, {"type", "linear"}, {"params", "disk 4"}};
  json params = {{"name", "vol"}, {"targets", json::array({linear})}, {"cwd", dir_}};
  ok("load", params);
  json targets = ok("table", {{"name", "vol"}, {"inactive", true}})["targets"];
  EXPECT_EQ(targets[0]["params"], dir_ + "/disk 4");
  params["cwd"] = "/";
  EXPECT_TRUE(failure("load", params).starts_with("ENOENT: ")) << failure("load", params);
}

TEST_F(DispatcherTest, VolumeOnAVolume) {
  make_zero("below", 64);
  ok("create", {{"name", "above"}});
  json linear = {{"start", 0}, {"length", 64}, {"type", "linear"}, {"params", "below 0"}};
  ok("load", {{"name", "above"}, {"targets", json::array({linear})}});
  ok("resume", {{"name", "above"}});
  json dep = ok("deps", {{"name", "above"}})["deps"][0];
  EXPECT_EQ(dep["name"], "below");
  EXPECT_EQ(dep["path"], "");
  EXPECT_EQ(dep["major"], 253);
  EXPECT_EQ(ok("status", {{"name", "below"}})["open_count"], 1);
  EXPECT_TRUE(failure("remove", {{"name", "below"}}).starts_with("EBUSY: "));
}

TEST_F(DispatcherTest, ClearDropsTheInactiveTable) {
  make_zero("vol");
  json table = json::array({zero_target(0, 99)});
  EXPECT_EQ(ok("load", {{"name", "vol"}, {"targets", table}})["inactive_table"], true);
  EXPECT_EQ(ok("clear", {{"name", "vol"}})["inactive_table"], false);
  EXPECT_EQ(ok("status", {{"name", "vol"}})["size"], 8);
}

TEST_F(DispatcherTest, SuspendAndResume) {
  make_zero("vol");
  EXPECT_EQ(ok("suspend", {{"name", "vol"}})["suspended"], true);
  EXPECT_EQ(ok("resume", {{"name", "vol"}, {"read_ahead", 17}})["suspended"], false);
  EXPECT_EQ(ok("status", {{"name", "vol"}})["read_ahead"], 17);
  EXPECT_EQ(ok("suspend", {{"name", "vol"}, {"noflush", true}, {"lockfs", false}})["suspended"],
            true);
  EXPECT_EQ(ok("resume", {{"name", "vol"}, {"noflush", true}, {"lockfs", false}})["suspended"],
            false);
}

TEST_F(DispatcherTest, RenameRaisesTheEventNumberThatWaitSees) {
  make_zero("vol");
  auto waiter = std::async(std::launch::async, [this] {
    return ok("wait", {{"minor", 0}, {"event_nr", 0}});
  });
  EXPECT_EQ(ok("rename", {{"name", "vol"}, {"new_name", "lot"}})["name"], "lot");
  EXPECT_EQ(waiter.get()["name"], "lot");
  json info = ok("rename", {{"name", "lot"}, {"new_uuid", "U"}});
  EXPECT_EQ(info["uuid"], "U");
  EXPECT_EQ(info["event_nr"], 2);
  EXPECT_EQ(ok("wait", {{"uuid", "U"}, {"event_nr", 0}})["event_nr"], 2);
  token_.cancel();
  EXPECT_TRUE(failure("wait", {{"name", "lot"}, {"event_nr", 2}}).starts_with("EINTR: "));
}

TEST_F(DispatcherTest, RemoveAndRemoveAll) {
  for (const char* name : {"c", "a", "b"}) make_zero(name);
  json names = json::array();
  json listed = ok("list");
  for (const json& device : listed["devices"]) names.push_back(device["name"]);
  EXPECT_EQ(names, json({"a", "b", "c"}));
  EXPECT_EQ(ok("remove", {{"name", "a"}}), json({{"deferred", false}}));
  EXPECT_TRUE(failure("status", {{"name", "a"}}).starts_with("ENXIO: "));
  auto minor = ok("status", {{"name", "b"}})["minor"].get<uint32_t>();
  ASSERT_TRUE(manager_->open(minor));
  EXPECT_EQ(ok("remove_all"), json({{"open", {"b"}}}));
  EXPECT_EQ(ok("remove", {{"name", "b"}, {"deferred", true}}), json({{"deferred", true}}));
  EXPECT_EQ(ok("status", {{"name", "b"}})["deferred_remove"], true);
  EXPECT_EQ(ok("remove_all", {{"deferred", true}}), json({{"open", {"b"}}}));
  manager_->close(minor);
}

TEST_F(DispatcherTest, Targets) {
  json targets = ok("targets")["targets"];
  json expected = json::array();
  for (const auto& [name, type] : registry_.all()) {
    const TargetVersion& v = type->version;
    expected.push_back({{"name", name}, {"version", {v.major, v.minor, v.patch}}});
  }
  EXPECT_EQ(targets, expected);
  EXPECT_EQ(registry_.all().contains("linear"), true);
}

TEST_F(DispatcherTest, Message) {
  make_zero("vol");
  EXPECT_EQ(ok("message", {{"name", "vol"}, {"sector", 0}, {"message", "@cancel_deferred_remove"}}),
            json({{"result", ""}}));
  std::string why = failure("message", {{"name", "vol"}, {"sector", 0}, {"message", "hello"}});
  EXPECT_TRUE(why.starts_with("EINVAL: ")) << why;
  why = failure("message", {{"name", "vol"}, {"sector", 8}, {"message", "hello"}});
  EXPECT_NE(why.find("outside"), std::string::npos) << why;
}

TEST_F(DispatcherTest, SetGeometry) {
  make_zero("vol", 1000);
  json geometry = {{"cylinders", 10}, {"heads", 5}, {"sectors", 20}, {"start", 1}};
  json params = geometry;
  params["name"] = "vol";
  EXPECT_EQ(ok("set_geometry", params)["geometry"], geometry);
}

TEST_F(DispatcherTest, ShutdownOnlyAsks) {
  EXPECT_EQ(ok("shutdown"), json::object());
  EXPECT_EQ(shutdowns_, 1);
  in_use_ = true;
  EXPECT_EQ(failure("shutdown", json::object()), "EBUSY: the mount is in use");
}

// ---- refusals

TEST_F(DispatcherTest, NoSuchMethod) {
  json reply = handle("frobnicate", json::object());
  EXPECT_EQ(reply["error"]["code"], -32601);
  EXPECT_EQ(reply["error"]["message"], "no such method: 'frobnicate'");
  EXPECT_EQ(reply["error"]["data"]["errno"], EINVAL);
}

TEST_F(DispatcherTest, NoRequest) {
  for (const char* text : {"[]", "3", "{}", R"({"jsonrpc":"2.0","id":4,"method":1})"}) {
    json reply = dispatcher_->handle(*parse_json(text), token_);
    EXPECT_EQ(reply["error"]["code"], -32600) << text;
  }
  json reply = dispatcher_->handle({{"id", 4}}, token_);
  EXPECT_EQ(reply["id"], 4);
  EXPECT_EQ(reply["error"]["message"], "jsonrpc: missing");
}

TEST_F(DispatcherTest, EveryMethodThatTakesADeviceWantsExactlyOne) {
  const std::array<std::pair<const char*, json>, 12> methods{{
      {"remove", json::object()},
      {"rename", {{"new_name", "x"}}},
      {"suspend", json::object()},
      {"resume", json::object()},
      {"status", json::object()},
      {"load", {{"targets", json::array()}}},
      {"clear", json::object()},
      {"table", json::object()},
      {"table_status", json::object()},
      {"deps", json::object()},
      {"message", {{"sector", 0}, {"message", "m"}}},
      {"wait", {{"event_nr", 0}}},
  }};
  for (const auto& [method, rest] : methods) {
    std::string name = method;
    json params = rest;
    EXPECT_EQ(refusal(name, params), name + ": one of name, uuid and minor is missing");
    params["name"] = "none";
    EXPECT_TRUE(failure(name, params).starts_with("ENXIO: ")) << failure(name, params);
    params["uuid"] = "u";
    EXPECT_EQ(refusal(name, params), name + ": only one of name, uuid and minor can be given");
    params.erase("uuid");
    params["minor"] = 0;
    EXPECT_EQ(refusal(name, params), name + ": only one of name, uuid and minor can be given");
    params["name"] = 5;
    EXPECT_EQ(refusal(name, params), name + ": name: not a string but a number");
    params.erase("name");
    params["minor"] = -1;
    EXPECT_EQ(refusal(name, params),
              name + ": minor: -1 is not a whole number from 0 to 4294967295");
  }
}

TEST_F(DispatcherTest, BadParametersAreNamed) {
  const json device = {{"name", "v"}};
  auto with = [&](json more) {
    more.update(device);
    return more;
  };
  EXPECT_EQ(refusal("create", json::object()), "create: name: missing");
  EXPECT_EQ(refusal("create", {{"name", nullptr}}), "create: name: not a string but a null");
  EXPECT_EQ(refusal("create", {{"name", std::string("a\0b", 3)}}), "create: name: has a NUL byte");
  EXPECT_EQ(refusal("create", with({{"uuid", 1}})), "create: uuid: not a string but a number");
  EXPECT_EQ(refusal("create", with({{"minor", "1"}})), "create: minor: not a number but a string");
  EXPECT_EQ(refusal("create", with({{"minor", 1.5}})),
            "create: minor: 1.5 is not a whole number from 0 to 4294967295");
  EXPECT_EQ(refusal("create", with({{"minor", 4294967296}})),
            "create: minor: 4294967296 is more than 4294967295");
  EXPECT_EQ(refusal("create", with({{"minr", 4}})), "create: unknown parameter 'minr'");
  EXPECT_EQ(refusal("version", {{"x", 1}}), "version: unknown parameter 'x'");
  EXPECT_EQ(refusal("list", device), "list: unknown parameter 'name'");
  EXPECT_EQ(refusal("targets", device), "targets: unknown parameter 'name'");
  EXPECT_EQ(refusal("shutdown", device), "shutdown: unknown parameter 'name'");
  EXPECT_EQ(shutdowns_, 0);
  EXPECT_EQ(refusal("remove", with({{"deferred", 1}})),
            "remove: deferred: neither true nor false but a number");
  EXPECT_EQ(refusal("remove_all", {{"deferred", "yes"}}),
            "remove_all: deferred: neither true nor false but a string");
  EXPECT_EQ(refusal("rename", device), "rename: one of new_name and new_uuid is missing");
  EXPECT_EQ(refusal("rename", with({{"new_name", "a"}, {"new_uuid", "b"}})),
            "rename: only one of new_name and new_uuid can be given");
  EXPECT_EQ(refusal("suspend", with({{"noflush", 0}})),
            "suspend: noflush: neither true nor false but a number");
  EXPECT_EQ(refusal("resume", with({{"read_ahead", "auto"}})),
            "resume: read_ahead: not a number but a string");
  EXPECT_EQ(refusal("table", with({{"inactive", nullptr}})),
            "table: inactive: neither true nor false but a null");
  EXPECT_EQ(refusal("message", with({{"message", "x"}})), "message: sector: missing");
  EXPECT_EQ(refusal("message", with({{"sector", 0}})), "message: message: missing");
  EXPECT_EQ(refusal("wait", device), "wait: event_nr: missing");
  EXPECT_EQ(refusal("set_geometry", with({{"cylinders", 1}})), "set_geometry: heads: missing");
}

TEST_F(DispatcherTest, BadTargetsAreNamed) {
  auto load = [&](json targets) {
    return refusal("load", {{"name", "v"}, {"targets", std::move(targets)}});
  };
  json good = zero_target(0, 8);
  auto changed = [&](const char* key, const json& value) {
    json target = good;
    target[key] = value;
    return json::array({good, target});
  };
  EXPECT_EQ(refusal("load", {{"name", "v"}}), "load: targets: missing");
  EXPECT_EQ(load("0 8 zero"), "load: targets: not an array but a string");
  EXPECT_EQ(load(json::array({good, 4})), "load: targets[1]: not an object but a number");
  EXPECT_EQ(load(json::array({good, json::object()})), "load: targets[1].start: missing");
  EXPECT_EQ(load(changed("start", -8)),
            "load: targets[1].start: -8 is not a whole number from 0 to 18446744073709551615");
  EXPECT_EQ(load(changed("length", 1e30)),
            "load: targets[1].length: 1e+30 is not a whole number from 0 to 18446744073709551615");
  EXPECT_EQ(load(changed("type", json::array())),
            "load: targets[1].type: not a string but a array");
  EXPECT_EQ(load(changed("params", false)), "load: targets[1].params: not a string but a boolean");
  EXPECT_EQ(load(changed("params", std::string("/dev/null\0x 0", 13))),
            "load: targets[1].params: has a NUL byte");
  EXPECT_EQ(load(changed("extra", 1)), "load: unknown parameter 'targets[1].extra'");
}

TEST_F(DispatcherTest, CommandsOwnErrorsComeThrough) {
  make_zero("vol");
  EXPECT_TRUE(failure("create", {{"name", "vol"}}).starts_with("EBUSY: "));
  EXPECT_TRUE(failure("create", {{"name", "a/b"}}).starts_with("EINVAL: "));
  EXPECT_TRUE(failure("create", {{"name", "control"}}).starts_with("EINVAL: "));
  json target = {{"start", 0}, {"length", 8}, {"type", "frob"}, {"params", ""}};
  std::string why = failure("load", {{"name", "vol"}, {"targets", json::array({target})}});
  EXPECT_NE(why.find("frob"), std::string::npos) << why;
}

// ---- mutated requests

TEST_F(DispatcherTest, MutatedRequestsNeverHarm) {
  // What waits would wait for ever.
  token_.cancel();
  make_zero("vol", 64);
  const std::vector<std::pair<std::string, json>> seeds{
      {"create", {{"name", "new"}, {"uuid", "U"}, {"minor", 9}, {"read_ahead", 8}}},
      {"load",
       {{"name", "vol"},
        {"targets", json::array({zero_target(0, 8), zero_target(8, 8)})},
        {"read_only", false},
        {"ordered", true},
        {"cwd", "/nowhere"}}},
      {"load",
       {{"name", "vol"},
        {"targets", json::array({{{"start", 0},
                                  {"length", 8},
                                  {"type", "striped"},
                                  {"params", "2 8 vol 0 nowhere/x\\ y 8"}}})}}},
      {"resume", {{"name", "vol"}, {"noflush", true}, {"lockfs", false}, {"read_ahead", 1}}},
      {"suspend", {{"name", "vol"}, {"noflush", false}}},
      {"status", {{"minor", 0}}},
      {"clear", {{"name", "vol"}}},
      {"table", {{"name", "vol"}, {"inactive", true}}},
      {"table_status", {{"name", "vol"}}},
      {"deps", {{"uuid", "U"}}},
      {"rename", {{"name", "new"}, {"new_name", "newer"}}},
      {"message", {{"name", "vol"}, {"sector", 3}, {"message", "a \\b c"}}},
      {"wait", {{"name", "vol"}, {"event_nr", 0}}},
      {"set_geometry",
       {{"name", "vol"}, {"cylinders", 1}, {"heads", 2}, {"sectors", 3}, {"start", 0}}},
      {"remove", {{"name", "new"}, {"deferred", true}}},
      {"remove_all", {{"deferred", false}}},
      {"list", json::object()},
      {"targets", json::object()},
      {"version", json::object()},
      {"shutdown", json::object()},
  };
  const std::array<const char*, 14> words{
      "null",        "-1",        "0",     "18446744073709551615",
      "4294967296",  "1e999",     "1e300", "true",
      "[]",          "{\"a\":1}", "\"\"",  "\"\\u0000\"",
      "\"\\ud800\"", "\"\xff\""};
  const unsigned seed = 8128;
  std::mt19937 random(seed);
  size_t results = 0, errors = 0, no_json = 0;
  for (int round = 0; round < 20000; ++round) {
    const auto& [method, params] = seeds[random() % seeds.size()];
    std::string text = *encode_request(1, method, params);
    for (unsigned n = random() % 3; n > 0; --n) {
      size_t at = random() % text.size();
      switch (random() % 5) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, 1 + random() % 6);
          break;
        case 2:
          text.insert(at, text.substr(random() % text.size(), random() % 20));
          break;
        default: {
          // Another value in the place of one.
          size_t colon = text.find(':', at);
          if (colon == std::string::npos) break;
          size_t end = text.find_first_of(",}]", colon);
          if (end != std::string::npos) {
            text.replace(colon + 1, end - colon - 1, words[random() % words.size()]);
          }
        }
      }
      if (text.empty()) text = "x";
    }
    auto message = parse_json(text);
    if (!message) {
      ++no_json;
      continue;
    }
    json reply = dispatcher_->handle(*message, token_);
    ASSERT_NE(reply.contains("result"), reply.contains("error")) << seed << " " << text;
    if (reply.contains("error")) {
      ++errors;
      ASSERT_GT(reply["error"]["data"]["errno"].get<int>(), 0) << text;
      ASSERT_NE(reply["error"]["message"], "") << text;
    } else {
      ++results;
    }
    ASSERT_TRUE(parse_json(to_line(reply))) << text;
  }
  // The mutations reach all three ends.
  EXPECT_GT(results, 1000u);
  EXPECT_GT(errors, 1000u);
  EXPECT_GT(no_json, 1000u);
  ok("remove_all");
  make_zero("after");
}

// ---- with the socket

TEST_F(DispatcherTest, OverTheSocket) {
  std::string path = dir_ + "/sock";
  auto server = Server::listen({.socket_path = path});
  ASSERT_TRUE(server) << server.error().message;
  ASSERT_TRUE((*server)->start([this](const json& request, CancelToken& cancel, const Peer&) {
    return dispatcher_->handle(request, cancel);
  }));
  auto client = Client::connect(path);
  ASSERT_TRUE(client) << client.error().message;
  ASSERT_TRUE(client->call("create", {{"name", "big"}}));
  json targets = json::array();
  for (uint64_t i = 0; i < 20000; ++i) targets.push_back(zero_target(i * 8, 8));
  auto loaded = client->call("load", {{"name", "big"}, {"targets", targets}});
  ASSERT_TRUE(loaded) << loaded.error().message;
  ASSERT_TRUE(client->call("resume", {{"name", "big"}}));
  EXPECT_TRUE((*client->call("table", {{"name", "big"}}))["targets"] == targets);
  auto missing = client->call("status", {{"name", "none"}});
  EXPECT_EQ(missing.error().code, ENXIO);
  // A waiting client, and one that is served meanwhile and wakes it.
  auto waiter = std::async(std::launch::async, [&] {
    return Client::connect(path)->call("wait", {{"minor", 0}, {"event_nr", 0}});
  });
  ASSERT_TRUE(client->call("rename", {{"name", "big"}, {"new_name", "huge"}}));
  auto woken = waiter.get();
  ASSERT_TRUE(woken) << woken.error().message;
  EXPECT_EQ((*woken)["name"], "huge");
  // Stopping ends a wait that nothing else would.
  auto stuck = std::async(std::launch::async, [&] {
    return client->call("wait", {{"name", "huge"}, {"event_nr", 1}});
  });
  ASSERT_TRUE(Client::connect(path)->call("status", {{"name", "huge"}}));
  (*server)->stop();
  auto ended = stuck.get();
  ASSERT_FALSE(ended);
  EXPECT_TRUE(ended.error().code == EINTR || ended.error().code == ECONNRESET)
      << ended.error().message;
}

class TellingFreezer final : public FsFreezer {
 public:
  Result<FreezeReport> freeze(uint32_t, CancelToken&) override {
    return FreezeReport{.frozen = {"/mnt"}, .notes = {"/other is not frozen"}};
  }
  std::vector<std::string> thaw(uint32_t, CancelToken&) override { return {"/mnt was thawed"}; }
};

TEST_F(DispatcherTest, SuspendAndResumeSayWhatLockfsDid) {
  TellingFreezer freezer;
  manager_->set_fs_freezer(&freezer);
  make_zero("z");
  json reply = ok("suspend", {{"name", "z"}});
  EXPECT_EQ(reply["frozen"], json({"/mnt"}));
  EXPECT_EQ(reply["notes"], json({"/other is not frozen"}));
  EXPECT_FALSE(ok("status", {{"name", "z"}}).contains("notes"));
  reply = ok("resume", {{"name", "z"}});
  EXPECT_FALSE(reply.contains("frozen"));
  EXPECT_EQ(reply["notes"], json({"/mnt was thawed"}));
  EXPECT_FALSE(ok("suspend", {{"name", "z"}, {"lockfs", false}}).contains("notes"));
}

}  // namespace
}  // namespace dmfs
