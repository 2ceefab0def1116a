// SPDX-License-Identifier: Apache-2.0
#include "core/targets/multipath/lua_sandbox.h"

#include <cstdlib>
#include <cstring>

#include <fmt/format.h>
#include <lua5.4/lua.hpp>

namespace dmfs {
namespace {

constexpr int kHookEvery = 1000;  // instructions

// What is left of the standard library. Not here: whatever reaches files, other code or bytecode;
// what could go on after a limit was hit (pcall, coroutines, finalizers); and what runs for long
// inside one instruction (patterns).
constexpr const char* kGlobals[] = {"assert", "error",    "ipairs", "next",     "pairs", "rawequal",
                                    "rawget", "rawlen",   "rawset", "select",   "tonumber",
                                    "tostring", "type"};
constexpr const char* kString[] = {"byte", "char",    "format", "len",  "lower",
                                   "pack", "packsize", "rep",   "reverse", "sub", "unpack", "upper"};
constexpr const char* kTable[] = {"concat", "insert", "pack", "remove", "sort", "unpack"};

void keep_only(lua_State* state, const char* library, const char* const* names, size_t count) {
  lua_getglobal(state, library);
  lua_createtable(state, 0, static_cast<int>(count));
  for (size_t i = 0; i < count; ++i) {
    lua_getfield(state, -2, names[i]);
    lua_setfield(state, -2, names[i]);
  }
  lua_setglobal(state, library);
  lua_pop(state, 1);
}

int open_libraries(lua_State* state) {
  luaL_requiref(state, "_G", luaopen_base, 1);
  luaL_requiref(state, "string", luaopen_string, 1);
  luaL_requiref(state, "table", luaopen_table, 1);
  luaL_requiref(state, "math", luaopen_math, 1);
  lua_pop(state, 4);
  keep_only(state, "string", kString, std::size(kString));
  keep_only(state, "table", kTable, std::size(kTable));
  // ("x"):rep(3) finds the same functions.
  lua_pushliteral(state, "");
  lua_getmetatable(state, -1);
  lua_getglobal(state, "string");
  lua_setfield(state, -2, "__index");
  lua_pop(state, 2);
  // A table of globals with nothing else in it.
  lua_newtable(state);
  for (const char* name : kGlobals) {
    lua_getglobal(state, name);
    lua_setfield(state, -2, name);
  }
  for (const char* name : {"string", "table", "math"}) {
    lua_getglobal(state, name);
    lua_setfield(state, -2, name);
  }
  lua_pushvalue(state, -1);
  lua_setfield(state, -2, "_G");
  lua_rawseti(state, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  lua_pushnil(state);
  lua_setfield(state, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  return 0;
}

int make_thread(lua_State* state) {  // the function is at the top of the main stack
  lua_State* thread = lua_newthread(state);
  lua_insert(state, -2);
  lua_xmove(state, thread, 1);
  int* reference = static_cast<int*>(lua_touserdata(state, 1));
  *reference = luaL_ref(state, LUA_REGISTRYINDEX);
  return 0;
}

}  // namespace

LuaSandbox::LuaSandbox(std::string name, void* owner, Limits limits)
    : name_(std::move(name)), chunk_("=" + name_), owner_(owner), limits_(limits) {
  main_ = lua_newstate(&LuaSandbox::allocate, this);
  if (!main_) return;
  LuaSandbox* self = this;
  std::memcpy(lua_getextraspace(main_), &self, sizeof self);  // every new thread gets a copy
  if (!run_protected(open_libraries, nullptr).empty()) {
    lua_close(main_);
    main_ = nullptr;
    return;
  }
  lua_sethook(main_, &LuaSandbox::count, LUA_MASKCOUNT, kHookEvery);  // inherited, too
}

LuaSandbox::~LuaSandbox() {
  if (main_) lua_close(main_);
}

LuaSandbox& LuaSandbox::of(lua_State* state) {
  LuaSandbox* self;
  std::memcpy(&self, lua_getextraspace(state), sizeof self);
  return *self;
}

void* LuaSandbox::allocate(void* self, void* old, size_t old_size, size_t new_size) {
  auto& sandbox = *static_cast<LuaSandbox*>(self);
  if (!old) old_size = 0;  // then it is a kind of object
  if (new_size == 0) {
    std::free(old);
    sandbox.used_ -= old_size;
    return nullptr;
  }
  if (new_size > old_size && new_size - old_size > sandbox.limits_.memory - sandbox.used_) {
    return nullptr;
  }
  void* memory = std::realloc(old, new_size);
  if (memory) sandbox.used_ += new_size - old_size;
  return memory;
}

void LuaSandbox::count(lua_State* state, lua_Debug*) {
  LuaSandbox& self = of(state);
  self.instructions_ += kHookEvery;
  if (self.instructions_ > self.limits_.instructions) {
    luaL_error(state, "more than %d million instructions",
               static_cast<int>(self.limits_.instructions / 1'000'000));
  }
  if (std::chrono::steady_clock::now() > self.until_) luaL_error(state, "took too long");
}

std::string LuaSandbox::run_protected(Body function, void* argument, int results) {
  instructions_ = 0;
  until_ = std::chrono::steady_clock::now() + limits_.time;
  // Neither of the two needs memory: a function without upvalues, and a stack that is not deep.
  lua_pushcfunction(main_, function);
  lua_pushlightuserdata(main_, argument);
  if (lua_pcall(main_, 1, results, 0) == LUA_OK) return {};
  std::string error = lua_type(main_, -1) == LUA_TSTRING ? lua_tostring(main_, -1) : "unknown error";
  lua_pop(main_, 1);
  return error;
}

std::string LuaSandbox::load(const std::string& text) {
  if (luaL_loadbufferx(main_, text.data(), text.size(), chunk_.c_str(), "t") == LUA_OK) return {};
  std::string error = lua_type(main_, -1) == LUA_TSTRING ? lua_tostring(main_, -1) : "unknown error";
  lua_pop(main_, 1);
  return error;
}

int LuaSandbox::start() {
  int reference = 0;
  // The function moves over into the protected call.
  lua_pushcfunction(main_, make_thread);
  lua_insert(main_, -2);
  lua_pushlightuserdata(main_, &reference);
  lua_insert(main_, -2);
  if (lua_pcall(main_, 2, 0, 0) != LUA_OK) {
    lua_pop(main_, 1);
    return 0;
  }
  return reference;
}

void LuaSandbox::let_go(int coroutine) { luaL_unref(main_, LUA_REGISTRYINDEX, coroutine); }

lua_State* LuaSandbox::thread_of(int coroutine) {
  lua_rawgeti(main_, LUA_REGISTRYINDEX, coroutine);
  lua_State* thread = lua_tothread(main_, -1);
  lua_pop(main_, 1);
  return thread;
}

LuaSandbox::Step LuaSandbox::resume(int coroutine, int arguments, std::string& error) {
  lua_State* thread = thread_of(coroutine);
  instructions_ = 0;
  until_ = std::chrono::steady_clock::now() + limits_.time;
  int results = 0;
  int status = lua_resume(thread, main_, arguments, &results);
  if (status == LUA_OK) return Step::Done;
  if (status == LUA_YIELD) return Step::Yielded;
  error = lua_type(thread, -1) == LUA_TSTRING ? lua_tostring(thread, -1) : "an error that is no text";
  if (error.starts_with(name_ + ":")) return Step::Failed;
  // The stack of a coroutine that has failed is still there to be looked at.
  lua_Debug frame;
  for (int level = 0; lua_getstack(thread, level, &frame); ++level) {
    lua_getinfo(thread, "Sl", &frame);
    if (frame.currentline < 0) continue;
    error = fmt::format("{}:{}: {}", name_, frame.currentline, error);
    return Step::Failed;
  }
  error = fmt::format("{}: {}", name_, error);
  return Step::Failed;
}

}  // namespace dmfs
