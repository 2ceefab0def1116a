// SPDX-License-Identifier: Apache-2.0
// A Lua 5.4 state for scripts that nobody has to trust: no access to anything outside it, and
// limits on memory, instructions and time. What a script calls runs as a coroutine, so that a
// function of ours may end in a yield and go on when its result is there.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

struct lua_State;
struct lua_Debug;

namespace dmfs {

// One thread at a time. Lua's errors (longjmp) never leave it.
class LuaSandbox {
 public:
  struct Limits {
    size_t memory = size_t{8} << 20;            // bytes
    uint64_t instructions = 10'000'000;         // of one call, until it ends or yields
    std::chrono::milliseconds time{1000};       // the same
  };

  // `name` is what messages say before the line number. `owner` is for functions of the owner's.
  LuaSandbox(std::string name, void* owner, Limits limits);
  ~LuaSandbox();
  LuaSandbox(const LuaSandbox&) = delete;
  LuaSandbox& operator=(const LuaSandbox&) = delete;

  // Whether there was memory for an empty state; nothing else may be called if not.
  bool ready() const { return main_ != nullptr; }

  // Runs `function` so that a Lua error in it does no harm. It holds nothing that has to be
  // destroyed while it calls Lua. Empty, or the error.
  using Body = int (*)(lua_State*);
  std::string run_protected(Body function, void* argument, int results = 0);

  // A coroutine with the function at the top of the main stack in it; it is kept until it is let
  // go of. 0: no memory.
  int start();
  void let_go(int coroutine);
  lua_State* thread_of(int coroutine);

  enum class Step { Done, Yielded, Failed };
  // Goes on with the coroutine, for which `arguments` values are on its stack. Failed: `error` is a
  // sentence that names the script and the line.
  Step resume(int coroutine, int arguments, std::string& error);

  lua_State* main() { return main_; }
  void* owner() const { return owner_; }
  // Of any state of a sandbox.
  static LuaSandbox& of(lua_State* state);
  // Compiles the text, no bytecode, and leaves it on the main stack. Empty, or the error.
  std::string load(const std::string& text);

 private:
  static void* allocate(void* self, void* old, size_t old_size, size_t new_size);
  static void count(lua_State* state, lua_Debug*);

  const std::string name_;
  const std::string chunk_;  // "=" + name_
  void* const owner_;
  const Limits limits_;
  size_t used_ = 0;
  uint64_t instructions_ = 0;
  std::chrono::steady_clock::time_point until_;
  lua_State* main_ = nullptr;
};

}  // namespace dmfs
