// SPDX-License-Identifier: Apache-2.0
// mount and umount: starting the daemon, and ending it.
#include <fmt/format.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "cli/commands.h"
#include "core/base/paths.h"
#include "cli/stale_mount.h"
#include "core/control/socket.h"

namespace dmfs::cli {
namespace {

namespace fs = std::filesystem;

// The daemon goes to another folder, so it gets absolute paths. Also, none begins with a dash then.
std::string absolute(const std::string& path) {
  std::error_code failed;
  fs::path full = fs::absolute(path, failed).lexically_normal();
  std::string text = failed ? path : full.string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

std::string folder_of(const std::string& path) {
  return fs::path(path).parent_path().string();
}

bool told(Session& session, const Status& status) {
  if (!status) {
    session.complain(fmt::format("{}: {}", session.options().program, status.error().message));
  }
  return static_cast<bool>(status);
}

struct MountPlan {
  std::string store, mount, socket;
  std::vector<std::string> new_folders;  // of the default places only
  std::string shared_folder;
};

Result<MountPlan> plan_mount(const Options& options, const Words& words) {
  MountPlan plan;
  Environment environment = process_environment();
  Paths paths = default_paths(environment);
  if (options.store) {
    plan.store = absolute(*options.store);
  } else {
    plan.store = paths.store;
    if (plan.store.empty()) {
      return Error{ENOENT, "neither HOME nor XDG_STATE_HOME is set: give --store"};
    }
    plan.new_folders.push_back(folder_of(plan.store));
  }
  if (!words.empty()) {
    plan.mount = absolute(words[0]);
  } else {
    plan.mount = paths.mount;
    plan.new_folders.push_back(plan.mount);
  }
  auto variable = environment.variable("DMFS_SOCKET");
  if (options.socket) {
    plan.socket = absolute(*options.socket);
  } else {
    plan.socket = absolute(paths.socket);
    if (!variable || variable->empty()) plan.new_folders.push_back(folder_of(plan.socket));
  }
  bool uses_shared = words.empty() || (!options.socket && (!variable || variable->empty()));
  if (uses_shared) plan.shared_folder = paths.shared_folder;
  return plan;
}

// Becomes the daemon; it puts itself into the background once the mount and the socket are there.
Error run_daemon(std::vector<std::string> words) {
  std::vector<char*> args;
  for (std::string& word : words) args.push_back(word.data());
  args.push_back(nullptr);
  std::error_code failed;
  fs::path self = fs::read_symlink("/proc/self/exe", failed);
  if (!failed) execv((self.parent_path() / "dmfs").c_str(), args.data());
  execvp("dmfs", args.data());
  int code = errno;
  return {code, fmt::format("cannot run dmfs: {}", strerror(code))};
}

bool same_folder(const std::string& a, const std::string& b) {
  if (absolute(a) == absolute(b)) return true;
  std::error_code failed;
  return fs::equivalent(a, b, failed);
}

// Waits for the end of a process that is not our child.
class ProcessEnd {
 public:
  explicit ProcessEnd(uint64_t pid)
      : fd_(static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0))) {}

  // False when the kernel gave us no way to wait.
  bool wait() const {
    if (!fd_) return false;
    pollfd end{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    int n;
    while ((n = poll(&end, 1, -1)) < 0 && errno == EINTR) {
    }
    return n == 1;
  }

 private:
  Fd fd_;
};

bool shut_down(Session& session, const Words& words) {
  auto reply = session.call("version");
  if (!reply) return told(session, reply.error());
  auto version = session.expect(read_version(*reply));
  if (!version) return false;
  if (!words.empty() && !same_folder(words[0], version->mount)) {
    session.complain(fmt::format(
        "{}: this daemon's mount is {}, not {}: give the --socket of the one that is meant",
        session.options().program, version->mount, absolute(words[0])));
    return false;
  }
  ProcessEnd daemon(version->pid);  // before it ends, while the pid is surely its own
  auto done = session.call("shutdown");
  if (!done) return told(session, done.error());
  if (!daemon.wait()) {
    // Another pid namespace, or an old kernel: the connection ends with the process at the latest.
    while (session.call("version")) usleep(10'000);
  }
  if (is_stale_mount(version->mount)) return told(session, detach_stale_mount(version->mount));
  return true;
}

}  // namespace

bool mount_command(Session& session, const Words& words) {
  const Options& options = session.options();
  auto plan = plan_mount(options, words);
  if (!plan) return told(session, plan.error());
  if (!plan->shared_folder.empty() && !told(session, check_private_folder(plan->shared_folder))) {
    return false;
  }
  for (const std::string& folder : plan->new_folders) {
    if (!told(session, make_folders(folder))) return false;
  }
  std::vector<std::string> daemon = {"dmfs", plan->store, plan->mount, "--socket", plan->socket};
  for (const std::string& list : options.o) {
    daemon.push_back("-o");
    daemon.push_back(list);
  }
  if (options.force) daemon.push_back("-f");
  return told(session, run_daemon(std::move(daemon)));
}

bool umount_command(Session& session, const Words& words) {
  std::string mount;
  if (!words.empty()) {
    mount = absolute(words[0]);
  } else if (!session.options().socket) {
    mount = default_paths(process_environment()).mount;
  }
  // A stale mount has no daemon to ask.
  if (!mount.empty() && is_stale_mount(mount)) return told(session, detach_stale_mount(mount));
  return session.connected() && shut_down(session, words);
}

}  // namespace dmfs::cli
