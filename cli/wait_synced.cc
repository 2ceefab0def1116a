// SPDX-License-Identifier: Apache-2.0
// wait --synced: until the mirrors of a device are in sync, with a progress bar on a terminal.
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/sync_progress.h"

namespace dmfs::cli {
namespace {

constexpr auto kPause = std::chrono::milliseconds(200);
constexpr double kPlainStep = 10;  // percent, between the lines that a log gets

unsigned terminal_columns() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// Shows where things are: a bar that is drawn over itself, or a line now and then.
class Display {
 public:
  Display(Session& session, std::string name)
      : session_(session), name_(std::move(name)), terminal_(isatty(STDOUT_FILENO) != 0) {}

  void show(const SyncProgress& progress, const SyncRate& rate) {
    if (session_.options().json) return;
    if (terminal_) {
      session_.print("\r" + progress_bar(name_, progress, rate, terminal_columns() - 1) + "\033[K");
      open_ = true;
    } else if (progress.percent() >= next_) {
      session_.print(progress_text(name_, progress, rate) + "\n");
      while (next_ <= progress.percent()) next_ += kPlainStep;
    }
  }
  void end() {
    if (open_) session_.print("\n");
    open_ = false;
  }

 private:
  Session& session_;
  const std::string name_;
  const bool terminal_;
  bool open_ = false;
  double next_ = 0;
};

}  // namespace

bool wait_synced(Session& session, const DeviceRef& device) {
  const Options& options = session.options();
  auto start = std::chrono::steady_clock::now();
  auto seconds = [&start] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  std::optional<Display> display;
  SyncRate rate;
  std::optional<uint64_t> done_before_failure;
  for (;;) {
    auto reply = session.run("status", device, "table_status");
    if (!reply) {
      if (display) display->end();
      return false;
    }
    auto table = session.expect(read_device_table(*reply, options.mangling));
    if (!table) return false;
    auto progress = read_sync_progress(table->targets);
    if (!progress) {
      session.complain(fmt::format("Device {} has no mirror.", table->info.name));
      return false;
    }
    if (!display) display.emplace(session, table->info.name);
    rate.sample(seconds(), *progress);
    display->show(*progress, rate);
    if (progress->complete()) {
      display->end();
      if (options.json) session.print_line(*reply);
      return true;
    }
    // A leg may come back in time; if nothing has moved at the next look it has not.
    if (!progress->failed.empty() && done_before_failure == progress->done) {
      display->end();
      session.complain(fmt::format("Device {} cannot be synchronised: leg {} has failed.",
                                   table->info.name, progress->failed));
      return false;
    }
    done_before_failure.reset();
    if (!progress->failed.empty()) done_before_failure = progress->done;
    if (options.timeout_ms && seconds() * 1000 >= *options.timeout_ms) {
      display->end();
      session.complain(fmt::format("Device {} is not in sync after {} ms.", table->info.name,
                                   *options.timeout_ms));
      return false;
    }
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace dmfs::cli
