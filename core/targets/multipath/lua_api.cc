// SPDX-License-Identifier: Apache-2.0
#include "core/targets/multipath/lua_api.h"

#include <cstdlib>
#include <cstring>

#include "core/base/errno_names.h"
#include "core/targets/multipath/lua_prelude.h"
#include "core/targets/multipath/lua_sandbox.h"

namespace dmfs {
namespace {

constexpr lua_Integer kMaxSectors = 128;  // of one read or write
constexpr lua_Integer kMaxSleepMs = 3'600'000;

ScriptRunner& runner_of(lua_State* state) {
  return *static_cast<ScriptRunner*>(LuaSandbox::of(state).owner());
}

HwPath& path_argument(lua_State* state, lua_Integer* number = nullptr) {
  luaL_checktype(state, 1, LUA_TTABLE);
  lua_getfield(state, 1, "number");
  lua_Integer n = luaL_checkinteger(state, -1);
  lua_pop(state, 1);  // or it would pass for an argument that was left out
  auto paths = runner_of(state).host().paths();
  if (n < 1 || static_cast<size_t>(n) > paths.size()) luaL_argerror(state, 1, "a path expected");
  if (number) *number = n;
  return *paths[static_cast<size_t>(n - 1)];
}

// A name is copied into memory of Lua's before a std::string of it is gone.
struct NameCopy {
  char text[4096];
  size_t size;
};
void copy_name(HwPath& path, NameCopy& copy) {
  std::string name = path.name();
  copy.size = std::min(name.size(), sizeof copy.text);
  std::memcpy(copy.text, name.data(), copy.size);
}

int path_name(lua_State* state) {
  NameCopy copy;
  copy_name(path_argument(state), copy);
  lua_pushlstring(state, copy.text, copy.size);
  return 1;
}

int path_state(lua_State* state) {
  lua_pushstring(state, path_argument(state).active() ? "active" : "failed");
  return 1;
}

int path_size(lua_State* state) {
  lua_pushinteger(state, static_cast<lua_Integer>(path_argument(state).device().size().n));
  return 1;
}

const char* name_of_errno(int error) {
  const char* name = strerrorname_np(error);
  return name ? name : "EIO";
}

// After a read: the data, or nil, the errno's name, and sense (key, code, qualifier) if there is any.
int io_finished(lua_State* state, int, lua_KContext reading) {
  const Bio& io = *runner_of(state).ended_io;
  if (io.status != 0) {
    lua_pushnil(state);
    lua_pushstring(state, name_of_errno(io.status));
    if (!io.sense.valid) return 2;
    lua_pushinteger(state, io.sense.key);
    lua_pushinteger(state, io.sense.asc);
    lua_pushinteger(state, io.sense.ascq);
    return 5;
  }
  if (reading) {
    lua_pushlstring(state, static_cast<const char*>(io.data.segments->iov_base),
                    io.data.segments->iov_len);
  } else {
    lua_pushboolean(state, 1);
  }
  return 1;
}

int path_read(lua_State* state) {
  lua_Integer path;
  (void)path_argument(state, &path);
  lua_Integer sector = luaL_checkinteger(state, 2), count = luaL_optinteger(state, 3, 1);
  luaL_argcheck(state, sector >= 0, 2, "a sector is not negative");
  luaL_argcheck(state, count >= 1 && count <= kMaxSectors, 3, "1 to 128 sectors");
  runner_of(state).request = {ScriptRequest::Kind::Read, path, sector, count, 0};
  return lua_yieldk(state, 0, 1, io_finished);
}

int path_write(lua_State* state) {
  lua_Integer path;
  (void)path_argument(state, &path);
  lua_Integer sector = luaL_checkinteger(state, 2);
  size_t size = 0;
  const char* data = luaL_checklstring(state, 3, &size);
  luaL_argcheck(state, sector >= 0, 2, "a sector is not negative");
  luaL_argcheck(state, size > 0 && size % kSectorSize == 0 && size / kSectorSize <= kMaxSectors, 3,
                "1 to 128 whole sectors of 512 bytes");
  ScriptRunner& runner = runner_of(state);
  std::free(runner.transfer);
  runner.transfer = std::aligned_alloc(4096, (size + 4095) / 4096 * 4096);
  if (!runner.transfer) return luaL_error(state, "no memory");
  std::memcpy(runner.transfer, data, size);
  runner.request = {ScriptRequest::Kind::Write, path, sector,
                     static_cast<lua_Integer>(size / kSectorSize), 0};
  return lua_yieldk(state, 0, 0, io_finished);
}

int script_sleep(lua_State* state) {
  lua_Integer ms = luaL_checkinteger(state, 1);
  luaL_argcheck(state, ms >= 0 && ms <= kMaxSleepMs, 1, "0 to 3600000 milliseconds");
  runner_of(state).request = {ScriptRequest::Kind::Sleep, 0, 0, 0, ms};
  return lua_yield(state, 0);
}

int script_after(lua_State* state) {
  lua_Integer ms = luaL_checkinteger(state, 1);
  luaL_argcheck(state, ms >= 0 && ms <= kMaxSleepMs, 1, "0 to 3600000 milliseconds");
  luaL_checktype(state, 2, LUA_TFUNCTION);
  lua_pushvalue(state, 2);
  int function = luaL_ref(state, LUA_REGISTRYINDEX);
  if (!runner_of(state).add_timer(ms, function)) {
    luaL_unref(state, LUA_REGISTRYINDEX, function);
    return luaL_error(state, "more than %d timers", static_cast<int>(kMaxScriptTimers));
  }
  return 0;
}

int script_log(lua_State* state) {
  const char* text = luaL_tolstring(state, 1, nullptr);
  runner_of(state).host().log(text);
  return 0;
}

// What dmfs would say of an error, in words.
int script_default_error(lua_State* state) {
  luaL_checktype(state, 1, LUA_TTABLE);
  lua_getfield(state, 1, "errno");
  lua_getfield(state, 1, "key");
  lua_getfield(state, 1, "asc");
  lua_getfield(state, 1, "ascq");
  const char* name = luaL_checkstring(state, -4);
  Sense sense;
  if (!lua_isnil(state, -3)) {
    sense = {static_cast<uint8_t>(luaL_checkinteger(state, -3)),
             static_cast<uint8_t>(luaL_optinteger(state, -2, 0)),
             static_cast<uint8_t>(luaL_optinteger(state, -1, 0)), true};
  }
  unsigned flags = default_error(parse_errno(name), sense);
  for (auto [word, flag] : kFlagWords) {
    if (flag == flags) lua_pushstring(state, word);
  }
  return 1;
}

// Globals, and an object for each path; the argument is the runner.

void push_path(lua_State* state, const HwPath& path) {
  lua_getfield(state, LUA_REGISTRYINDEX, "dmfs.paths");
  lua_rawgeti(state, -1, path.number());
  lua_remove(state, -2);
}

}  // namespace

int open_script_api(lua_State* state) {
  ScriptRunner& runner = runner_of(state);
  for (auto [name, function] : {std::pair<const char*, lua_CFunction>{"sleep", script_sleep},
                                {"after", script_after},
                                {"log", script_log},
                                {"default_error", script_default_error}}) {
    lua_pushcfunction(state, function);
    lua_setglobal(state, name);
  }
  if (luaL_loadbufferx(state, kLuaPrelude, sizeof kLuaPrelude - 1, "=dmfs", "t") != LUA_OK) {
    return lua_error(state);
  }
  lua_call(state, 0, 1);
  int command = lua_gettop(state);
  lua_newtable(state);
  for (HwPath* path : runner.host().paths()) {
    lua_newtable(state);
    lua_pushvalue(state, command);
    lua_setfield(state, -2, "command");
    lua_pushinteger(state, path->number());
    lua_setfield(state, -2, "number");
    lua_pushinteger(state, path->group());
    lua_setfield(state, -2, "group");
    lua_newtable(state);
    lua_setfield(state, -2, "vars");
    for (auto [name, function] : {std::pair<const char*, lua_CFunction>{"name", path_name},
                                  {"state", path_state},
                                  {"size", path_size},
                                  {"read", path_read},
                                  {"write", path_write}}) {
      lua_pushcfunction(state, function);
      lua_setfield(state, -2, name);
    }
    lua_rawseti(state, -2, path->number());
  }
  lua_pushvalue(state, -1);
  lua_setfield(state, LUA_REGISTRYINDEX, "dmfs.paths");
  lua_setglobal(state, "paths");
  return 0;
}

int keep_hooks(lua_State* state) {
  luaL_checktype(state, 2, LUA_TTABLE);
  lua_pushvalue(state, 2);
  lua_setfield(state, LUA_REGISTRYINDEX, "dmfs.hooks");
  return 0;
}

int find_hook(lua_State* state) {
  auto* name = static_cast<const char*>(lua_touserdata(state, 1));
  // A script that was refused has none.
  if (lua_getfield(state, LUA_REGISTRYINDEX, "dmfs.hooks") != LUA_TTABLE) return luaL_error(state, "no hooks");
  lua_pushstring(state, name);
  lua_rawget(state, -2);
  return 1;
}

int words_argument(lua_State* state) {
  auto& words = *static_cast<const std::vector<std::string>*>(lua_touserdata(state, 1));
  lua_newtable(state);
  for (size_t i = 0; i < words.size(); ++i) {
    lua_pushlstring(state, words[i].data(), words[i].size());
    lua_rawseti(state, -2, static_cast<lua_Integer>(i + 1));
  }
  return 1;
}

int init_arguments(lua_State* state) {
  auto& what = *static_cast<InitArguments*>(lua_touserdata(state, 1));
  lua_pushboolean(state, what.bypassed);
  push_path(state, *what.path);
  return 2;
}

int error_arguments(lua_State* state) {
  auto& what = *static_cast<ErrorArguments*>(lua_touserdata(state, 1));
  push_path(state, *what.path);
  lua_newtable(state);
  lua_pushstring(state, op_name(what.error.op));
  lua_setfield(state, -2, "op");
  lua_pushinteger(state, static_cast<lua_Integer>(what.error.sector.n));
  lua_setfield(state, -2, "sector");
  lua_pushinteger(state, static_cast<lua_Integer>(what.error.count.n));
  lua_setfield(state, -2, "count");
  lua_pushstring(state, name_of_errno(what.error.error));
  lua_setfield(state, -2, "errno");
  if (what.error.sense.valid) {
    lua_pushinteger(state, what.error.sense.key);
    lua_setfield(state, -2, "key");
    lua_pushinteger(state, what.error.sense.asc);
    lua_setfield(state, -2, "asc");
    lua_pushinteger(state, what.error.sense.ascq);
    lua_setfield(state, -2, "ascq");
  }
  return 2;
}

}  // namespace dmfs
