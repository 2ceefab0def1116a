// SPDX-License-Identifier: Apache-2.0
#include "core/targets/multipath/lua_handler.h"

#include <cstdlib>
#include <cstring>
#include <set>

#include <fmt/format.h>
#include <lua5.4/lua.hpp>

#include "core/base/args.h"
#include "core/base/executor.h"
#include "core/targets/multipath/lua_api.h"
#include "core/targets/multipath/lua_sandbox.h"

namespace dmfs {
namespace {

constexpr size_t kMaxStatusWords = 64;

class LuaHandler;

// A read or write of a script's, with memory of its own.
struct ScriptIo : Bio {
  explicit ScriptIo(LuaHandler& h) : Bio(&ScriptIo::ended), handler(h) {}
  ~ScriptIo() { std::free(memory.iov_base); }
  static void ended(Bio& bio);

  LuaHandler& handler;
  uint64_t task = 0;
  iovec memory{};
};

struct Task {
  enum class Kind { Init, Error, Timer } kind;
  int coroutine = 0;
  HwPath* path = nullptr;
};

class LuaHandler final : public HwHandler, private ScriptRunner {
 public:
  LuaHandler(HwHost& host, const std::string& name, std::span<const std::string> args)
      : host_(host),
        name_(name),
        args_(args.begin(), args.end()),
        lua_(name + ".lua", static_cast<ScriptRunner*>(this), {}) {}
  ~LuaHandler() override;

  Status begin(const std::string& script);
  void pg_init(bool bypassed, HwPath& path) override;
  void error(HwPath& path, const HwError& error, Decide decide) override;
  std::string status(HwStatus kind) const override;
  std::string fault() const override {
    MutexLock lock(mutex_);
    return fault_;
  }

  void io_ended(ScriptIo& io);

 private:
  struct Pending {
    Task::Kind kind;
    HwPath* path;
    Decide decide;
    uint64_t deadline;
  };

  // ScriptRunner
  HwHost& host() override { return host_; }
  bool add_timer(lua_Integer ms, int function) override;

  uint64_t expect_answer(Task::Kind kind, HwPath& path, Decide decide);
  void answer(uint64_t task, unsigned flags);
  void overdue(uint64_t task);
  void script_failed(const std::string& what, const HwPath* path);
  void later(std::chrono::milliseconds delay, std::function<void()> work);

  // The thread of the script
  void start(uint64_t id, Task::Kind kind, HwPath& path, const char* hook, LuaSandbox::Body arguments,
             void* argument, int count);
  void go_on(uint64_t id, int arguments);
  void wait_for_request(uint64_t id);
  void end_task(uint64_t id, const std::string& error);
  bool read_flags(lua_State* thread, unsigned& flags);
  void refresh_status();

  // Constant after construction.
  HwHost& host_;
  const std::string name_;
  const std::vector<std::string> args_;

  // Of the script's thread.
  LuaSandbox lua_;
  std::map<uint64_t, Task> tasks_;

  mutable Mutex mutex_;
  CondVar io_done_;
  bool closing_ DM_GUARDED_BY(mutex_) = false;
  uint64_t last_task_ DM_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, Pending> pending_ DM_GUARDED_BY(mutex_);
  std::set<uint64_t> timers_ DM_GUARDED_BY(mutex_);  // ids of the clock's
  size_t script_timers_ = 0;                         // of the script's thread
  std::set<ScriptIo*> ios_ DM_GUARDED_BY(mutex_);
  std::string fault_ DM_GUARDED_BY(mutex_);
  const HwPath* fault_path_ DM_GUARDED_BY(mutex_) = nullptr;  // whose activation clears it; null: any
  std::string status_ DM_GUARDED_BY(mutex_) = "0";

  std::unique_ptr<ThreadExecutor> thread_ = std::make_unique<ThreadExecutor>();
};

// ---- from the beginning to the end of a handler ----------------------------------------------------

Status LuaHandler::begin(const std::string& script) {
  auto refuse = [this](const std::string& why) {
    bool named = why.starts_with(name_ + ".lua:");
    return Error{EINVAL, named ? why : fmt::format("{}.lua: {}", name_, why)};
  };
  if (!lua_.ready()) return Error{ENOMEM, name_ + ".lua: no memory"};
  if (auto error = lua_.run_protected(open_script_api, nullptr); !error.empty()) return refuse(error);
  if (auto error = lua_.load(script); !error.empty()) return refuse(error);
  // The script itself, then its create(args): neither may wait for anything.
  for (bool creating : {false, true}) {
    if (creating) {
      auto* hook = const_cast<char*>("create");
      if (auto error = lua_.run_protected(find_hook, hook, 1); !error.empty()) return refuse(error);
      if (lua_isnil(lua_.main(), -1)) {
        lua_pop(lua_.main(), 1);
        break;
      }
    }
    int coroutine = lua_.start();
    if (coroutine == 0) return refuse("not enough memory");
    lua_State* thread = lua_.thread_of(coroutine);
    std::string error;
    if (creating) {
      auto* words = const_cast<std::vector<std::string>*>(&args_);
      error = lua_.run_protected(words_argument, words, 1);
      if (!error.empty()) return refuse(error);
      lua_xmove(lua_.main(), thread, 1);
    }
    LuaSandbox::Step step = lua_.resume(coroutine, creating ? 1 : 0, error);
    if (step == LuaSandbox::Step::Failed) return refuse(error);
    if (step == LuaSandbox::Step::Yielded) return refuse("waits before it has been created");
    if (!creating) {
      if (lua_gettop(thread) == 0 || lua_type(thread, -1) != LUA_TTABLE) {
        return refuse("does not return a table of hooks");
      }
      lua_pushcfunction(lua_.main(), keep_hooks);
      lua_pushnil(lua_.main());
      lua_pushvalue(thread, -1);
      lua_xmove(thread, lua_.main(), 1);
      if (lua_pcall(lua_.main(), 2, 0, 0) != LUA_OK) return refuse("not enough memory");
    }
    lua_.let_go(coroutine);
  }
  auto* hook = const_cast<char*>("pg_init");
  if (auto error = lua_.run_protected(find_hook, hook, 1); !error.empty()) return refuse(error);
  bool there = lua_isfunction(lua_.main(), -1);
  lua_pop(lua_.main(), 1);
  if (!there) return refuse("has no function pg_init");
  refresh_status();
  return {};
}

LuaHandler::~LuaHandler() {
  std::set<uint64_t> timers;
  {
    MutexLock lock(mutex_);
    closing_ = true;
    pending_.clear();
    timers = timers_;
  }
  for (uint64_t timer : timers) host_.clock().cancel_and_wait(timer);
  thread_.reset();  // runs what was posted, which sees that this is the end
  // What the paths still have of ours is ours.
  std::set<ScriptIo*> ios;
  {
    MutexLock lock(mutex_);
    ios = ios_;
  }
  for (ScriptIo* io : ios) (void)io->dev->cancel({.origin = io, .error = EINTR});
  {
    MutexLock lock(mutex_);
    while (!ios_.empty()) io_done_.wait(mutex_);
  }
  std::free(transfer);
  auto* hook = const_cast<char*>("destroy");
  if (!lua_.ready() || !lua_.run_protected(find_hook, hook, 1).empty()) return;
  if (!lua_isfunction(lua_.main(), -1)) return;
  std::string ignored;
  if (int coroutine = lua_.start()) (void)lua_.resume(coroutine, 0, ignored);
}

// ---- what multipath asks ---------------------------------------------------------------------------

void LuaHandler::later(std::chrono::milliseconds delay, std::function<void()> work) {
  auto id = std::make_shared<uint64_t>();  // shared with the call, which may come at once
  MutexLock lock(mutex_);
  if (closing_) return;
  *id = host_.clock().call_at(host_.clock().now() + delay, [this, id, work = std::move(work)] {
    {
      MutexLock relock(mutex_);
      if (timers_.erase(*id) == 0 || closing_) return;
    }
    work();
  });
  timers_.insert(*id);
}

uint64_t LuaHandler::expect_answer(Task::Kind kind, HwPath& path, Decide decide) {
  MutexLock lock(mutex_);
  uint64_t id = ++last_task_;
  uint64_t deadline = host_.clock().call_at(host_.clock().now() + kScriptPatience,
                                            [this, id] { overdue(id); });
  timers_.insert(deadline);
  pending_.emplace(id, Pending{kind, &path, std::move(decide), deadline});
  return id;
}

// Says it once, whoever is first.
void LuaHandler::answer(uint64_t task, unsigned flags) {
  Pending pending;
  {
    MutexLock lock(mutex_);
    auto at = pending_.find(task);
    if (at == pending_.end()) return;
    pending = std::move(at->second);
    pending_.erase(at);
    if (host_.clock().cancel(pending.deadline)) timers_.erase(pending.deadline);
    if (pending.kind == Task::Kind::Init && flags == 0 &&
        (!fault_path_ || fault_path_ == pending.path)) {
      fault_.clear();
    }
  }
  if (pending.kind == Task::Kind::Init) return host_.pg_init_complete(*pending.path, flags);
  pending.decide(flags);
}

void LuaHandler::overdue(uint64_t task) {
  const HwPath* path;
  {
    MutexLock lock(mutex_);
    auto at = pending_.find(task);
    if (at == pending_.end()) return;
    timers_.erase(at->second.deadline);
    path = at->second.path;
  }
  script_failed(fmt::format("{}.lua: no answer in {} seconds", name_, kScriptPatience.count()), path);
  answer(task, kHwFailPath);
}

void LuaHandler::script_failed(const std::string& what, const HwPath* path) {
  {
    MutexLock lock(mutex_);
    fault_ = what;
    fault_path_ = path;
  }
  host_.log(what.c_str());
}

void LuaHandler::pg_init(bool bypassed, HwPath& path) {
  uint64_t id = expect_answer(Task::Kind::Init, path, {});
  thread_->post([this, id, bypassed, &path] {
    InitArguments what{bypassed, &path};
    start(id, Task::Kind::Init, path, "pg_init", init_arguments, &what, 2);
  });
}

void LuaHandler::error(HwPath& path, const HwError& error, Decide decide) {
  uint64_t id = expect_answer(Task::Kind::Error, path, std::move(decide));
  thread_->post([this, id, error, &path] {
    ErrorArguments what{&path, error};
    start(id, Task::Kind::Error, path, "error", error_arguments, &what, 2);
  });
}

std::string LuaHandler::status(HwStatus kind) const {
  if (kind == HwStatus::Info) {
    MutexLock lock(mutex_);
    return status_;
  }
  std::string line = fmt::format("{} {}", args_.size() + 1, quote_arg(name_));
  for (const std::string& arg : args_) line += ' ' + quote_arg(arg);
  return line;
}

// ---- the script's thread -----------------------------------------------------------------------------

void LuaHandler::start(uint64_t id, Task::Kind kind, HwPath& path, const char* hook,
                       LuaSandbox::Body arguments, void* argument, int count) {
  {
    MutexLock lock(mutex_);
    if (closing_ || !pending_.contains(id)) return;
  }
  std::string error = lua_.run_protected(find_hook, const_cast<char*>(hook), 1);
  if (!error.empty()) return end_task(id, error);
  if (lua_isnil(lua_.main(), -1) && kind == Task::Kind::Error) {  // not every script decodes errors
    lua_pop(lua_.main(), 1);
    auto& what = *static_cast<ErrorArguments*>(argument);
    return answer(id, default_error(what.error.error, what.error.sense));
  }
  int coroutine = lua_.start();
  if (coroutine == 0) return end_task(id, "not enough memory");
  tasks_.emplace(id, Task{kind, coroutine, &path});
  error = lua_.run_protected(arguments, argument, count);
  if (!error.empty()) return end_task(id, error);
  lua_xmove(lua_.main(), lua_.thread_of(coroutine), count);
  go_on(id, count);
}

void LuaHandler::go_on(uint64_t id, int arguments) {
  {
    MutexLock lock(mutex_);
    if (closing_) return;
  }
  auto at = tasks_.find(id);
  if (at == tasks_.end()) return;
  Task& task = at->second;
  request = {};
  std::string error;
  switch (lua_.resume(task.coroutine, arguments, error)) {
    case LuaSandbox::Step::Failed:
      return end_task(id, error);
    case LuaSandbox::Step::Yielded:
      return wait_for_request(id);
    case LuaSandbox::Step::Done:
      break;
  }
  unsigned flags = 0;
  bool timer = task.kind == Task::Kind::Timer;
  if (!timer && !read_flags(lua_.thread_of(task.coroutine), flags)) {
    return end_task(id, fmt::format("{}.lua: {} returned no word that it knows", name_,
                                    task.kind == Task::Kind::Init ? "pg_init" : "error"));
  }
  lua_.let_go(task.coroutine);
  tasks_.erase(at);
  refresh_status();
  if (!timer) answer(id, flags);
}

void LuaHandler::wait_for_request(uint64_t id) {
  if (request.kind == ScriptRequest::Kind::None) return end_task(id, "waits for nothing");
  if (request.kind == ScriptRequest::Kind::Sleep) {
    return later(std::chrono::milliseconds(request.ms), [this, id] {
      thread_->post([this, id] { go_on(id, 0); });
    });
  }
  auto io = std::make_unique<ScriptIo>(*this);
  size_t size = static_cast<size_t>(request.count) * kSectorSize;
  bool write = request.kind == ScriptRequest::Kind::Write;
  io->memory = {write ? std::exchange(transfer, nullptr)
                      : std::aligned_alloc(4096, (size + 4095) / 4096 * 4096),
                size};
  if (!io->memory.iov_base) return end_task(id, "not enough memory");
  io->task = id;
  io->op = write ? Op::Write : Op::Read;
  io->data = {&io->memory, 1, 0};
  io->sector = {static_cast<uint64_t>(request.sector)};
  io->count = {static_cast<uint64_t>(request.count)};
  io->dev = &host_.paths()[static_cast<size_t>(request.path - 1)]->device();
  ScriptIo& bio = *io.release();
  {
    MutexLock lock(mutex_);
    ios_.insert(&bio);
  }
  bio.dev->submit(bio);
}

void ScriptIo::ended(Bio& bio) {
  auto& io = static_cast<ScriptIo&>(bio);
  io.handler.io_ended(io);
}

// Any thread: that of the path.
void LuaHandler::io_ended(ScriptIo& io) {
  MutexLock lock(mutex_);
  if (closing_) {
    ios_.erase(&io);
    delete &io;
    io_done_.notify_all();
    return;
  }
  // Still counted until the script has seen it; thread_ is there as long as closing_ is not set.
  thread_->post([this, owned = &io] {
    ended_io = owned;
    go_on(owned->task, 0);
    ended_io = nullptr;
    MutexLock relock(mutex_);
    ios_.erase(owned);
    delete owned;
    io_done_.notify_all();
  });
}

void LuaHandler::end_task(uint64_t id, const std::string& error) {
  auto at = tasks_.find(id);
  bool timer = at != tasks_.end() && at->second.kind == Task::Kind::Timer;
  const HwPath* path = at != tasks_.end() ? at->second.path : nullptr;
  if (at != tasks_.end()) {
    lua_.let_go(at->second.coroutine);
    tasks_.erase(at);
  }
  script_failed(error.starts_with(name_ + ".lua") ? error : fmt::format("{}.lua: {}", name_, error),
                path);
  if (!timer) answer(id, kHwFailPath);
}

bool LuaHandler::read_flags(lua_State* thread, unsigned& flags) {
  auto word = [&](int index) {
    if (lua_type(thread, index) != LUA_TSTRING) return false;
    for (auto [text, flag] : kFlagWords) {
      if (std::strcmp(lua_tostring(thread, index), text) != 0) continue;
      flags |= flag;
      return true;
    }
    return false;
  };
  if (lua_gettop(thread) == 0) return false;
  if (lua_type(thread, -1) != LUA_TTABLE) return word(-1);
  lua_Unsigned count = lua_rawlen(thread, -1);
  if (count == 0 || count > std::size(kFlagWords)) return false;
  for (lua_Unsigned i = 1; i <= count; ++i) {
    lua_rawgeti(thread, -1, static_cast<lua_Integer>(i));
    if (!word(-1)) return false;
    lua_pop(thread, 1);
  }
  return true;
}

bool LuaHandler::add_timer(lua_Integer ms, int function) {
  if (script_timers_ == kMaxScriptTimers) return false;
  ++script_timers_;
  uint64_t id;
  {
    MutexLock lock(mutex_);
    id = ++last_task_;
  }
  later(std::chrono::milliseconds(ms), [this, id, function] {
    thread_->post([this, id, function] {
      --script_timers_;
      lua_rawgeti(lua_.main(), LUA_REGISTRYINDEX, function);
      lua_.let_go(function);
      int coroutine = lua_.start();
      if (coroutine == 0) return script_failed(name_ + ".lua: not enough memory", nullptr);
      tasks_.emplace(id, Task{Task::Kind::Timer, coroutine, nullptr});
      go_on(id, 0);
    });
  });
  return true;
}

// What status() says now, for whoever asks next.
void LuaHandler::refresh_status() {
  auto* hook = const_cast<char*>("status");
  if (!lua_.run_protected(find_hook, hook, 1).empty()) return;
  if (!lua_isfunction(lua_.main(), -1)) return lua_pop(lua_.main(), 1);
  int coroutine = lua_.start();
  if (coroutine == 0) return;
  std::string error;
  std::string line = "0";
  if (lua_.resume(coroutine, 0, error) == LuaSandbox::Step::Failed) {
    script_failed(error, nullptr);
  } else if (lua_State* thread = lua_.thread_of(coroutine);
             lua_gettop(thread) > 0 && lua_type(thread, -1) == LUA_TTABLE) {
    size_t count = std::min<size_t>(lua_rawlen(thread, -1), kMaxStatusWords);
    line = fmt::to_string(count);
    for (size_t i = 1; i <= count; ++i) {
      lua_rawgeti(thread, -1, static_cast<lua_Integer>(i));
      std::string word = lua_type(thread, -1) == LUA_TSTRING ? lua_tostring(thread, -1)
                         : lua_isinteger(thread, -1) ? fmt::to_string(lua_tointeger(thread, -1))
                                                     : "?";
      line += ' ' + (word.empty() ? "-" : quote_arg(word));
      lua_pop(thread, 1);
    }
  }
  lua_.let_go(coroutine);
  MutexLock lock(mutex_);
  status_ = line;
}

}  // namespace

Result<std::unique_ptr<HwHandler>> create_lua_handler(HwHost& host, const std::string& name,
                                                      const std::string& script,
                                                      std::span<const std::string> args) {
  auto handler = std::make_unique<LuaHandler>(host, name, args);
  DM_TRY_STATUS(handler->begin(script));
  return std::unique_ptr<HwHandler>(std::move(handler));
}

}  // namespace dmfs
