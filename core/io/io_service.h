// SPDX-License-Identifier: Apache-2.0
// How files are read and written: what all backing files of a daemon share.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "core/io/io_threads.h"
#include "core/io/uring.h"

namespace dmfs {

// The way of reads and writes of local files. Everything else (flushes, discards, files on network
// and FUSE file systems, which may hang) is done by threads, whatever the engine.
enum class Engine {
  Auto,     // inline where that does not block, else io_uring, else threads
  Inline,   // inline where that does not block, else threads
  Threads,
  Uring,
};
inline constexpr std::string_view kEngineNames[] = {"auto", "inline", "threads", "io_uring"};

class IoService {
 public:
  struct Options {
    Engine engine = Engine::Auto;
    bool direct = false;             // files are opened O_DIRECT
    unsigned max_blocking_inline = 4;  // see BlockingInline
  };
  IoService() : IoService(Options{}) {}
  explicit IoService(Options options);
  IoService(const IoService&) = delete;
  IoService& operator=(const IoService&) = delete;

  IoThreads& threads() { return threads_; }
  // nullptr where io_uring is not wanted, or forbidden.
  Uring* uring() { return uring_.get(); }
  Engine engine() const { return options_.engine; }
  bool direct() const { return options_.direct; }
  // The engine asked for, if it cannot be had.
  Status status() const { return status_; }
  // What is used for what, in a line.
  std::string describe() const;

  // A caller's thread about to do what may block for a while (a write that has to wait for dirty
  // pages to be written). Only so many at a time: the others of the front stay free.
  class BlockingInline {
   public:
    explicit BlockingInline(IoService& service) : service_(service) {
      entered_ = service_.blocking_.fetch_add(1, std::memory_order_relaxed) <
                 service_.options_.max_blocking_inline;
    }
    ~BlockingInline() { service_.blocking_.fetch_sub(1, std::memory_order_relaxed); }
    explicit operator bool() const { return entered_; }

   private:
    IoService& service_;
    bool entered_;
  };

 private:
  const Options options_;
  IoThreads threads_;
  std::unique_ptr<Uring> uring_;
  std::string no_uring_;  // why there is none
  Status status_;
  alignas(64) std::atomic<unsigned> blocking_{0};
};

}  // namespace dmfs
