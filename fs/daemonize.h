// SPDX-License-Identifier: Apache-2.0
// Going into the background: the process that the user started waits until the daemon answers, so
// that its exit status and its error lines are the truth.
#pragma once

#include <string>

namespace dmfs {

class Background {
 public:
  // Stays in the foreground: the functions below print to stderr.
  Background() = default;
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  // Forks; call it before the first thread. Returns in the child only, a session leader with / as
  // its working directory. The parent waits, and exits with 0 once ready() was called, else with
  // 1 (or what failed() says) and the child's words on stderr.
  void enter();
  // Child: the daemon answers. Closes the ties to the terminal.
  void ready();
  // Child: one line for the user; the caller exits with `exit_code` then.
  void failed(const std::string& message, int exit_code = 1);

 private:
  int report_fd_ = -1;  // in the child, until ready() or failed()
};

}  // namespace dmfs
