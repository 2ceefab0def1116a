// SPDX-License-Identifier: Apache-2.0
// The functions that a script of a hardware handler calls, and what is put before its own: Lua's side
// of dmfs-handlers(7). All of this is the script's thread's. Nothing in a function that Lua calls may
// need a destructor, for Lua jumps over it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <lua5.4/lua.hpp>

#include "core/targets/multipath/hw_handler.h"

namespace dmfs {

inline constexpr size_t kMaxScriptTimers = 64;

inline constexpr std::pair<const char*, unsigned> kFlagWords[] = {{"ok", 0},
                                                                  {"fail_path", kHwFailPath},
                                                                  {"bypass_pg", kHwBypassGroup},
                                                                  {"error_io", kHwErrorIo},
                                                                  {"retry", kHwRetry}};

// What a script waits for, from the yield to the driver; or what it asked for at once.
struct ScriptRequest {
  enum class Kind { None, Sleep, Read, Write } kind = Kind::None;
  lua_Integer path = 0, sector = 0, count = 0, ms = 0;
};

// Who runs a script: the owner of its sandbox, as its functions see it.
class ScriptRunner {
 public:
  virtual HwHost& host() = 0;
  // Calls the function of that reference so much later. False: there are kMaxScriptTimers already.
  virtual bool add_timer(lua_Integer ms, int function) = 0;

  ScriptRequest request;
  void* transfer = nullptr;      // the memory of a write, until it is sent
  const Bio* ended_io = nullptr; // what a yield waited for; of one segment

 protected:
  ~ScriptRunner() = default;
};

// Bodies for LuaSandbox::run_protected(). Globals, and an object for each path.
int open_script_api(lua_State* state);
// The argument is a C string: the hook of that name, or nil.
int find_hook(lua_State* state);
// The argument is a vector of strings: a table of them.
int words_argument(lua_State* state);
// What pg_init and error are called with.
struct InitArguments {
  bool bypassed;
  HwPath* path;
};
int init_arguments(lua_State* state);
struct ErrorArguments {
  HwPath* path;
  HwError error;
};
int error_arguments(lua_State* state);
// To be called by Lua: what the script has returned is its table of hooks.
int keep_hooks(lua_State* state);

}  // namespace dmfs
