// SPDX-License-Identifier: Apache-2.0
#include "fs/daemon.h"

#include <poll.h>
#include <signal.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <thread>

#include "core/base/clock.h"
#include "core/base/executor.h"
#include "core/base/script_path.h"
#include "core/control/dispatcher.h"
#include "core/control/server.h"
#include "core/control/socket.h"
#include "core/dm/commands.h"
#include "core/dm/device_manager.h"
#include "core/io/io_service.h"
#include "core/targets/builtin.h"
#include "fs/fuse_mount.h"
#include "fs/loop_freezer.h"
#include "fs/mount_point.h"
#include "store/sqlite_store.h"

namespace dmfs {
namespace {

// More than this cost: requests go round all threads, and each has a large buffer to keep warm.
// (1 MiB writes, depth 8, two cores: 5,700 MiB/s with ten, 7,200 with four.)
constexpr unsigned kMinThreads = 4;
constexpr std::chrono::seconds kMaxWaitAtEnd{10};
// How many asynchronous requests the kernel lets be outstanding for the whole mount. A suspended
// volume may hold that many, and then the others starve; so it is well above what a volume's
// users queue. (Users without privileges get at most fuse.max_user_bgreq.)
constexpr unsigned kMaxBackground = 4096;

Status open_log(const DaemonOptions& options) {
  const MountOptions& o = options.mount_options;
  try {
    std::shared_ptr<spdlog::logger> logger;
    if (options.foreground && o.log.empty()) {
      logger = spdlog::stderr_color_mt("dmfs");
    } else {
      logger = spdlog::basic_logger_mt("dmfs", o.log.empty() ? options.store + ".log" : o.log);
    }
    logger->set_level(spdlog::level::from_str(o.log_level));
    logger->flush_on(spdlog::level::trace);  // no thread that wakes to flush
    spdlog::set_default_logger(std::move(logger));
  } catch (const spdlog::spdlog_ex& failed) {
    return Error{EIO, fmt::format("log: {}", failed.what())};
  }
  return {};
}

// Every backing file and client takes a descriptor.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    spdlog::warn("cannot raise the limit of open files: {}", std::strerror(errno));
  }
}

// Signals and the mount's end, as descriptors that the main thread sleeps on.
class EndSignal {
 public:
  // Before the first thread, for threads inherit what is blocked.
  EndSignal() {
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ends, nullptr);
    signals_ = Fd(signalfd(-1, &ends, SFD_CLOEXEC));
    unmounted_ = Fd(eventfd(0, EFD_CLOEXEC));
  }
  bool ok() const { return signals_ && unmounted_; }
  void unmounted() {
    uint64_t one = 1;
    (void)!write(unmounted_.get(), &one, sizeof(one));
  }
  void wait() {
    pollfd ends[2] = {{signals_.get(), POLLIN, 0}, {unmounted_.get(), POLLIN, 0}};
    while (poll(ends, 2, -1) < 0 && errno == EINTR) {
    }
    signalfd_siginfo info{};
    if ((ends[0].revents & POLLIN) && read(signals_.get(), &info, sizeof(info)) > 0) {
      spdlog::info("ends: {} from process {}", strsignal(static_cast<int>(info.ssi_signo)),
                   info.ssi_pid);
    } else {
      spdlog::info("ends: unmounted");
    }
  }

 private:
  Fd signals_;
  Fd unmounted_;
};

unsigned thread_count(const DaemonOptions& options) {
  return options.mount_options.threads.value_or(
      std::max(kMinThreads, std::thread::hardware_concurrency()));
}

FuseMount::Options mount_options(const DaemonOptions& options) {
  const MountOptions& o = options.mount_options;
  bool others = o.allow_other || o.allow_root;
  FuseMount::Options mount;
  mount.request = {.path = options.mount,
                   .fsname = o.fsname.empty() ? options.store : o.fsname,
                   .read_only = o.read_only,
                   .allow_other = others,
                   // Others are let in to what the mode of the volumes allows them, no more.
                   .default_permissions = o.default_permissions || others};
  mount.front = {.mode = o.mode.value_or(0600),
                 .uid = o.uid.value_or(geteuid()),
                 .gid = o.gid.value_or(getegid()),
                 .max_background = o.max_background.value_or(kMaxBackground),
                 .cache = o.cache};
  mount.root_may_enter = o.allow_root;
  mount.threads = thread_count(options);
  return mount;
}

// Where hardware handlers are looked for: the mount's, the user's, those of the program.
std::vector<std::string> handler_path(const DaemonOptions& options) {
  std::vector<std::string> path;
  if (!options.mount_options.handlers.empty()) path.push_back(options.mount_options.handlers);
  const char* config = std::getenv("XDG_CONFIG_HOME");
  const char* home = std::getenv("HOME");
  if (geteuid() == 0) {
    path.push_back("/etc/dmfs/handlers");
  } else if (config && config[0] == '/') {
    path.push_back(std::string(config) + "/dmfs/handlers");
  } else if (home && home[0] == '/') {
    path.push_back(std::string(home) + "/.config/dmfs/handlers");
  }
  // Before it is installed they are beside the program.
  std::error_code failed;
  std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", failed);
  if (!failed) path.push_back(program.parent_path().string() + "/handlers");
  path.push_back(DMFS_HANDLERS);
  return path;
}

LoopFreezer::Options freezer_options(const DaemonOptions& options, DeviceManager& manager,
                                     FuseMount& mount) {
  const MountOptions& o = options.mount_options;
  return {.device = mount.device_number(),
          .mount = options.mount,
          .cache = o.cache,
          .name_of = [&manager](uint32_t minor) { return manager.name_of(minor); },
          .is_open = [&mount](uint32_t minor) { return mount.is_open(minor); },
          .own_files = {options.store, o.log.empty() ? options.store + ".log" : o.log,
                        "/proc/self/fd/2"}};
}

[[noreturn]] void end_hung(const char* what) {
  spdlog::critical("{}: ends without waiting for it", what);
  spdlog::shutdown();
  _exit(kExitHung);
}

Result<int> serve(const DaemonOptions& options, Background& background) {
  umask(077);
  EndSignal end;
  if (!end.ok()) return Error{errno, fmt::format("signalfd: {}", std::strerror(errno))};
  // The mount point first, so that a misspelt one makes no store. The socket before the mount: who
  // is second there finds out before it has changed anything.
  DM_TRY(int dead_mounts, prepare_mount_point(options.mount));
  DM_TRY(std::unique_ptr<SqliteStore> store, SqliteStore::open(options.store));
  DM_TRY_STATUS(open_log(options));
  if (dead_mounts > 0) {
    spdlog::warn("{}: detached the mount of a dmfs that is dead", options.mount);
  }
  raise_descriptor_limit();
  DM_TRY(auto server, Server::listen({.socket_path = options.socket, .allowed_uid = geteuid()}));

  TargetRegistry registry;
  register_builtin_targets(registry);
  unsigned threads = thread_count(options);
  IoService io({.engine = options.mount_options.engine,
                .direct = options.mount_options.direct_backing,
                // At most half of the threads that receive may wait for a file.
                .max_blocking_inline = threads / 2});
  DM_TRY_STATUS(io.status());
  SystemClock clock;
  auto executor = std::make_unique<ThreadExecutor>();
  auto manager = std::make_unique<DeviceManager>(DeviceManager::Options{
      .registry = registry, .store = *store, .executor = *executor, .io = io, .clock = clock,
      .held_limit = options.mount_options.held_limit.value_or(HeldBudget::kDefaultLimit),
      .read_script = [scripts = ScriptPath(handler_path(options))](
                         const std::string& name) { return scripts.read(name); },
      .log = [](const std::string& text) { spdlog::warn("{}", text); }});
  DM_TRY_STATUS(manager->start());
  for (const DeviceInfo& info : manager->infos()) {
    if (info.not_activated.empty()) continue;
    spdlog::warn("{}: not activated: {}", info.name, info.not_activated);
  }
  auto mounted = FuseMount::mount(*manager, mount_options(options), [&end] { end.unmounted(); });
  if (!mounted) {
    manager->stop();
    return mounted.error();
  }
  std::unique_ptr<FuseMount> mount = *std::move(mounted);
  manager->set_own_mount(mount.get());
  auto freezer = std::make_unique<LoopFreezer>(freezer_options(options, *manager, *mount));
  manager->set_fs_freezer(freezer.get());

  Commands commands(*manager, registry);
  Dispatcher dispatcher(commands, {.mount = options.mount,
                                   .store = options.store,
                                   .engine = io.describe(),
                                   .shutdown = [&mount] { return mount->unmount(); }});
  Status serving = server->start(
      [&dispatcher, &mount](const nlohmann::json& request, CancelToken& cancel, const Peer&) {
        nlohmann::json reply = dispatcher.handle(request, cancel);
        mount->tell_sizes();
        mount->tell_contents(cancel);
        return reply;
      });
  if (serving) {
    background.ready();
    spdlog::info("serves {} on {}, socket {}", options.store, options.mount, options.socket);
    spdlog::info("engine {}", io.describe());
    end.wait();
  }

  // No more commands, what is frozen thaws (which may need requests), no more requests, what is held
  // fails, and only then what serves them goes.
  server->stop();
  manager->set_fs_freezer(nullptr);
  CancelToken never;
  manager->thaw_all(never);
  mount->stop_serving();
  manager->set_own_mount(nullptr);
  manager->stop();
  if (!mount->finish()) end_hung("a backing file does not answer");
  mount.reset();
  if (!freezer->finish(kMaxWaitAtEnd)) end_hung("a file system over a volume does not thaw");
  executor.reset();  // runs the removals that waited for the last close
  manager.reset();
  freezer.reset();
  store.reset();
  if (!serving) return serving.error();
  spdlog::info("ended");
  return kExitOk;
}

}  // namespace

int run_daemon(const DaemonOptions& options, Background& background) {
  Result<int> code = serve(options, background);
  if (code) return *code;
  background.failed(code.error().message, kExitFailed);
  return kExitFailed;
}

}  // namespace dmfs
