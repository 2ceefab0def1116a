// SPDX-License-Identifier: Apache-2.0
// Handlers that are Lua scripts: what they can do, and what happens when they do wrong.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <thread>

#include "core/targets/multipath/lua_handler.h"
#include "tests/support/fake_clock.h"
#include "tests/support/held_file.h"

namespace dmfs::test {
namespace {

using std::chrono::milliseconds;

class ScriptPath final : public HwPath {
 public:
  ScriptPath(unsigned number, HeldFile& file) : number_(number), file_(file) {}
  unsigned number() const override { return number_; }
  unsigned group() const override { return 1; }
  std::string name() const override { return file_.name(); }
  bool active() const override { return works; }
  BackingFile& device() override { return file_; }
  bool works = true;

 private:
  const unsigned number_;
  HeldFile& file_;
};

class LuaHandler : public ::testing::Test, protected HwHost {
 protected:
  LuaHandler() {
    one_.hold(false);
    two_.hold(false);
  }
  ~LuaHandler() override { handler_.reset(); }

  Status make(const std::string& script, std::vector<std::string> args = {}) {
    handler_.reset();
    auto made = create_lua_handler(*this, "test", script, args);
    if (!made) return made.error();
    handler_ = *std::move(made);
    return {};
  }
  // A script whose pg_init has this body.
  Status make_init(const std::string& body) {
    return make("return { pg_init = function(bypassed, path)\n" + body + "\nend }");
  }
  // Runs an activation to its end; the clock stands still.
  unsigned activate(ScriptPath& path, bool bypassed = false) {
    handler_->pg_init(bypassed, path);
    return result();
  }
  unsigned result() {
    MutexLock lock(mutex_);
    while (results_.empty()) came_.wait(mutex_);
    unsigned flags = results_.front();
    results_.erase(results_.begin());
    return flags;
  }
  unsigned decide(const HwError& error) {
    handler_->error(path1_, error, [this](unsigned flags) { add(flags); });
    return result();
  }
  void add(unsigned flags) {
    MutexLock lock(mutex_);
    results_.push_back(flags);
    came_.notify_all();
  }
  // Lets time pass until there is a result.
  unsigned result_in_time(milliseconds step) {
    for (int i = 0; i < 100000; ++i) {
      {
        MutexLock lock(mutex_);
        if (!results_.empty()) break;
      }
      if (clock_.pending() > 1) clock_.advance(step);  // besides the deadline
      std::this_thread::yield();
    }
    return result();
  }
  // What make() says of a script.
  std::string refusal(const std::string& script) {
    Status made = make(script);
    return made ? "accepted" : made.error().message;
  }
  std::string log() {
    MutexLock lock(mutex_);
    return log_;
  }

  std::span<HwPath* const> paths() override { return paths_; }
  void pg_init_complete(HwPath&, unsigned flags) override { add(flags); }
  Clock& clock() override { return clock_; }
  void log(const char* text) override {
    MutexLock lock(mutex_);
    log_ += std::string(text) + "\n";
  }

  FakeClock clock_;
  HeldFile one_{"one", {100}}, two_{"two", {100}};
  ScriptPath path1_{1, one_}, path2_{2, two_};
  HwPath* paths_[2] = {&path1_, &path2_};
  Mutex mutex_;
  CondVar came_;
  std::vector<unsigned> results_ DM_GUARDED_BY(mutex_);
  std::string log_ DM_GUARDED_BY(mutex_);
  std::unique_ptr<HwHandler> handler_;
};

TEST_F(LuaHandler, AnswersOfPgInit) {
  const std::pair<const char*, unsigned> cases[] = {
      {"'ok'", 0},
      {"'fail_path'", kHwFailPath},
      {"'bypass_pg'", kHwBypassGroup},
      {"'error_io'", kHwErrorIo},
      {"'retry'", kHwRetry},
      {"{ 'bypass_pg', 'fail_path' }", kHwBypassGroup | kHwFailPath}};
  for (auto [answer, flags] : cases) {
    ASSERT_TRUE(make_init(std::string("return ") + answer));
    EXPECT_EQ(activate(path1_), flags) << answer;
    EXPECT_EQ(handler_->fault(), "");
  }
  for (const char* bad : {"", "return 'nonsense'", "return {}", "return 7", "return { 'ok', 'x' }"}) {
    ASSERT_TRUE(make_init(bad));
    EXPECT_EQ(activate(path1_), kHwFailPath) << bad;
    EXPECT_EQ(handler_->fault(), "test.lua: pg_init returned no word that it knows");
  }
}

TEST_F(LuaHandler, PathsAndArguments) {
  ASSERT_TRUE(make(R"(
    local h, given = {}, nil
    function h.create(args) given = args end
    function h.pg_init(bypassed, path)
      assert(#paths == 2 and paths[path.number] == path)
      assert(path:name() == 'two' and path.group == 1)
      assert(path:state() == 'failed' and paths[1]:state() == 'active')
      assert(#given == 2 and given[2] == 'b c')
      path.vars.seen = (path.vars.seen or 0) + 1
      return bypassed and path.vars.seen == 1 and 'ok' or 'retry'
    end
    function h.status() return { 'seen', paths[2].vars.seen or 0, 'x y' } end
    return h)", {"a", "b c"}));
  EXPECT_EQ(handler_->status(HwStatus::Table), "3 test a b\\ c");
  EXPECT_EQ(handler_->status(HwStatus::Info), "3 seen 0 x\\ y");
  path2_.works = false;
  EXPECT_EQ(activate(path2_, true), 0u) << handler_->fault();
  EXPECT_EQ(handler_->status(HwStatus::Info), "3 seen 1 x\\ y");
  EXPECT_EQ(activate(path2_, true), kHwRetry);
}

TEST_F(LuaHandler, ReadsAndWritesWithoutBlocking) {
  ASSERT_TRUE(make_init(R"(
    assert(path:write(8, ('x'):rep(1024)))
    local data, err = path:read(8, 2)
    assert(data == ('x'):rep(1024), err)
    local none, why, key, asc, ascq = path:read(0)
    return none == nil and why == 'ETIMEDOUT' and key == 2 and asc == 4 and ascq == 1 and 'ok' or 'retry')"));
  one_.hold(true);
  handler_->pg_init(false, path1_);
  ASSERT_TRUE(one_.wait_held(1));
  one_.complete_next();
  ASSERT_TRUE(one_.wait_held(1));
  one_.complete_next();
  ASSERT_TRUE(one_.wait_held(1));
  one_.complete_next(ETIMEDOUT, Sense{2, 4, 1, true});
  EXPECT_EQ(result(), 0u) << handler_->fault();
  // One sector if nothing else is said, on whichever path.
  ASSERT_TRUE(make_init("return #path:read(0) == 512 and path:size() == 100 and 'ok' or 'retry'"));
  EXPECT_EQ(activate(path2_), 0u) << handler_->fault();
  for (const char* bad : {"path:command('format')", "path:command('stpg', ('x'):rep(513))",
                          "path:read(-1)", "path:read(0, 129)", "path:read(0, 0)", "path:write(0, 'x')",
                          "path:write(0, ('x'):rep(65 * 1024))", "path.read({}, 1)",
                          "path.read({ number = 3 }, 1)"}) {
    ASSERT_TRUE(make_init(std::string(bad) + " return 'ok'"));
    EXPECT_EQ(activate(path1_), kHwFailPath) << bad;
  }
}

TEST_F(LuaHandler, SleepsAndTimers) {
  ASSERT_TRUE(make_init("after(100, function() log('timer') end) sleep(500) log('slept') return 'ok'"));
  handler_->pg_init(false, path1_);
  EXPECT_EQ(result_in_time(milliseconds(100)), 0u);
  EXPECT_EQ(log(), "timer\nslept\n");
  ASSERT_TRUE(make_init("for i = 1, 65 do after(1000, function() end) end return 'ok'"));
  EXPECT_EQ(activate(path1_), kHwFailPath);
  EXPECT_EQ(handler_->fault(), "test.lua:2: more than 64 timers");
}

TEST_F(LuaHandler, DecodesErrors) {
  ASSERT_TRUE(make(R"(return {
    pg_init = function() return 'ok' end,
    error = function(path, e)
      if e.errno == 'ENOSPC' and e.op == 'write' and e.sector == 7 and e.count == 2 then return 'bypass_pg' end
      return default_error(e)
    end })"));
  EXPECT_EQ(decide({Op::Write, {7}, {2}, ENOSPC, {}}), kHwBypassGroup);
  EXPECT_EQ(decide({Op::Write, {8}, {2}, ENOSPC, {}}), kHwErrorIo);
  EXPECT_EQ(decide({Op::Read, {8}, {2}, EIO, {}}), kHwFailPath);
  EXPECT_EQ(decide({Op::Read, {8}, {2}, EIO, {6, 4, 1, true}}), kHwRetry);
  EXPECT_EQ(decide({Op::Read, {8}, {2}, EIO, {0, 0, 0, true}}), 0u);
  // Without that function it is dmfs who decodes.
  ASSERT_TRUE(make_init("return 'ok'"));
  EXPECT_EQ(decide({Op::Write, {8}, {2}, ENOSPC, {}}), kHwErrorIo);
}

// ---- scripts that do wrong ----------------------------------------------------------------------

TEST_F(LuaHandler, AScriptThatErrsFailsItsPathAndSaysWhere) {
  const std::pair<const char*, const char*> cases[] = {
      {"error('no such array')", "test.lua:2: no such array"},
      {"local x = nil; x.y = 1", "test.lua:2: attempt to index a nil value (local 'x')"},
      {"\n\nwhile true do end", "test.lua:4: more than 10 million instructions"},
      {"local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end",
       "test.lua:2: not enough memory"},
      {"local function f() return 1 + f() end f()", "test.lua:2: not enough memory"},
      {"error({})", "test.lua:2: an error that is no text"},
      {"sleep(-1)", "test.lua:2: bad argument #1 to 'sleep' (0 to 3600000 milliseconds)"},
  };
  for (auto [body, text] : cases) {
    ASSERT_TRUE(make_init(body));
    EXPECT_EQ(activate(path1_), kHwFailPath) << body;
    EXPECT_TRUE(handler_->fault().starts_with(text)) << handler_->fault();
    EXPECT_NE(log().find(text), std::string::npos);
  }
  // The handler lives on.
  ASSERT_TRUE(make("local n = 0 return { pg_init = function() n = n + 1 assert(n > 1) return 'ok' end }"));
  EXPECT_EQ(activate(path1_), kHwFailPath);
  EXPECT_NE(handler_->fault(), "");
  EXPECT_EQ(activate(path1_), 0u);
  EXPECT_EQ(handler_->fault(), "");
}

TEST_F(LuaHandler, AScriptThatNeverCompletesFailsItsPath) {
  ASSERT_TRUE(make_init("sleep(3600000) return 'ok'"));
  handler_->pg_init(false, path1_);
  clock_.advance(kScriptPatience);
  EXPECT_EQ(result(), kHwFailPath);
  EXPECT_EQ(handler_->fault(), "test.lua: no answer in 30 seconds");
  // Also one whose read does not end; its end later is no answer any more.
  ASSERT_TRUE(make_init("path:read(0) return 'ok'"));
  one_.hold(true);
  handler_->pg_init(false, path1_);
  ASSERT_TRUE(one_.wait_held(1));
  clock_.advance(kScriptPatience);
  EXPECT_EQ(result(), kHwFailPath);
  one_.complete_next();
}

TEST_F(LuaHandler, WhatAScriptCannotReach) {
  for (const char* name : {"io", "os", "package", "debug", "require", "dofile", "loadfile", "load",
                           "loadstring", "pcall", "xpcall", "coroutine", "collectgarbage", "print",
                           "setmetatable", "getmetatable", "utf8", "string.dump", "string.find",
                           "string.gsub", "string.match", "string.gmatch", "table.move"}) {
    EXPECT_TRUE(make(fmt::format("assert({} == nil) assert(_G._G == _G) return {{ pg_init = function() end }}",
                                 name)))
        << name;
  }
  EXPECT_TRUE(make("assert((''):rep(3) == '') assert(('x').find == nil) return { pg_init = function() end }"));
}

TEST_F(LuaHandler, ScriptsThatAreRefused) {
  EXPECT_EQ(refusal("x ="), "test.lua:1: unexpected symbol near <eof>");
  EXPECT_EQ(refusal("\nerror('bad')"), "test.lua:2: bad");
  EXPECT_EQ(refusal(""), "test.lua: does not return a table of hooks");
  EXPECT_EQ(refusal("return {}"), "test.lua: has no function pg_init");
  EXPECT_EQ(refusal("return { create = function() error('no args') end, pg_init = function() end }"),
            "test.lua:1: no args");
  EXPECT_EQ(refusal("sleep(1) return {}"), "test.lua: waits before it has been created");
  EXPECT_EQ(refusal("while true do end"), "test.lua:1: more than 10 million instructions");
  EXPECT_TRUE(refusal("\x1bLua").starts_with("test.lua: attempt to load a binary chunk")) << refusal("\x1bLua");
}

TEST_F(LuaHandler, GoesAtAnyTime) {
  // While it computes, sleeps, reads, or has timers.
  for (const char* body : {"while true do end", "sleep(1000) return 'ok'", "path:read(0) return 'ok'",
                           "after(5, function() end) return 'ok'"}) {
    ASSERT_TRUE(make_init(body));
    handler_->pg_init(false, path1_);
    handler_.reset();
    {
      MutexLock lock(mutex_);
      results_.clear();
    }
  }
  ASSERT_TRUE(make("return { pg_init = function() end, destroy = function() log('bye') end }"));
  handler_.reset();
  EXPECT_NE(log().find("bye"), std::string::npos);
}

}  // namespace
}  // namespace dmfs::test
