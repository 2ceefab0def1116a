// SPDX-License-Identifier: Apache-2.0
#include "fs/daemonize.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace dmfs {
namespace {

// What the child writes: lines for the user, then one of these and for Failed the exit code.
constexpr char kReady = '\1';
constexpr char kFailed = '\2';

void write_all(int fd, const std::string& bytes) {
  for (size_t at = 0; at < bytes.size();) {
    ssize_t n = write(fd, bytes.data() + at, bytes.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // nobody is left to hear it
    at += static_cast<size_t>(n);
  }
}

[[noreturn]] void wait_for_child(pid_t child, int fd) {
  std::string report;
  char buffer[4096];
  while (true) {
    ssize_t n = read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    report.append(buffer, static_cast<size_t>(n));
  }
  size_t end = report.find_first_of({kReady, kFailed});
  std::string lines = report.substr(0, end);
  int code = 1;
  if (end == std::string::npos) {
    // It died, or somebody killed it, without a word.
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) {
      lines += fmt::format("dmfs: the daemon was killed by signal {} ({}) while it started\n",
                           WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else {
      lines += "dmfs: the daemon ended while it started\n";
    }
  } else if (report[end] == kReady) {
    code = 0;
  } else if (end + 1 < report.size()) {
    code = static_cast<unsigned char>(report[end + 1]);
  }
  write_all(STDERR_FILENO, lines);
  _exit(code);
}

}  // namespace

void Background::enter() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    failed(fmt::format("pipe: {}", std::strerror(errno)));
    std::exit(1);
  }
  pid_t child = fork();
  if (child < 0) {
    failed(fmt::format("fork: {}", std::strerror(errno)));
    std::exit(1);
  }
  if (child > 0) {
    close(ends[1]);
    wait_for_child(child, ends[0]);
  }
  close(ends[0]);
  report_fd_ = ends[1];
  setsid();
  if (chdir("/") != 0) {
    failed(fmt::format("chdir: {}", std::strerror(errno)));
    std::exit(1);
  }
}

void Background::ready() {
  if (report_fd_ < 0) return;
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null >= 0) {
    for (int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(null, fd);
    if (null > STDERR_FILENO) close(null);
  }
  write_all(report_fd_, std::string(1, kReady));
  close(report_fd_);
  report_fd_ = -1;
}

void Background::failed(const std::string& message, int exit_code) {
  std::string line = fmt::format("dmfs: {}\n", message);
  if (report_fd_ < 0) {
    write_all(STDERR_FILENO, line);
    return;
  }
  write_all(report_fd_, line + kFailed + static_cast<char>(exit_code));
  close(report_fd_);
  report_fd_ = -1;
}

}  // namespace dmfs
