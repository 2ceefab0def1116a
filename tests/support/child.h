// SPDX-License-Identifier: Apache-2.0
// A forked process that a test listens to and kills.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <string>

namespace dmfs {

// A child process that runs `work` with the write end of a pipe, then waits to be killed.
class Child {
 public:
  explicit Child(const std::function<void(int)>& work) {
    int ends[2];
    if (pipe(ends) != 0) abort();
    pid_ = fork();
    if (pid_ == 0) {
      close(ends[0]);
      work(ends[1]);
      close(ends[1]);
      for (;;) pause();
    }
    close(ends[1]);
    out_ = ends[0];
  }
  ~Child() {
    kill_and_wait();
    close(out_);
  }
  pid_t pid() const { return pid_; }
  // Up to `size` bytes; less at the end of the child's words.
  std::string read(size_t size) {
    std::string text(size, '\0');
    size_t have = 0;
    while (have < size) {
      ssize_t n = ::read(out_, text.data() + have, size - have);
      if (n <= 0) break;
      have += static_cast<size_t>(n);
    }
    text.resize(have);
    return text;
  }
  void kill_and_wait() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
  int out_ = -1;
};

}  // namespace dmfs
