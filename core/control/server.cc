// SPDX-License-Identifier: Apache-2.0
#include "core/control/server.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <system_error>
#include <utility>

namespace dmfs {

namespace {

constexpr uint64_t kWakeKey = 0;
constexpr uint64_t kListenerKey = 1;
constexpr uint64_t kFirstClientKey = 2;
constexpr int kMaxAccepts = 64;  // in a row, before hang-ups and stop() are looked at again

// Hang-ups and errors are always reported; edge-triggered, so that a client that is gone is
// reported once and not until its thread has closed the socket.
constexpr uint32_t kHangUpOnly = EPOLLET;

Status watch(const Fd& epoll, int fd, uint32_t events, uint64_t key) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = key;
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return errno_error("epoll_ctl", errno);
  }
  return {};
}

Fd open_reserve() {
  return Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
}

// One line; then the caller closes. Never waits: nothing was sent before.
void refuse(int fd, int code, const std::string& message) {
  std::string line = to_line(error_reply(nullptr, RpcCode::CommandFailed, Error{code, message}));
  [[maybe_unused]] auto sent = send_all(fd, line, std::chrono::milliseconds(0));
}

}  // namespace

Server::Server(Private, ServerOptions options, Listener listener, Fd epoll, Fd wake, Fd reserve)
    : options_(std::move(options)),
      epoll_(std::move(epoll)),
      wake_(std::move(wake)),
      listener_(std::move(listener)),
      reserve_(std::move(reserve)),
      next_key_(kFirstClientKey) {}

Result<std::unique_ptr<Server>> Server::listen(ServerOptions options) {
  DM_TRY(Listener listener, Listener::open(options.socket_path, options.mode));
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return errno_error("epoll_create1", errno);
  Fd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return errno_error("eventfd", errno);
  DM_TRY_STATUS(watch(epoll, wake.get(), EPOLLIN, kWakeKey));
  // Edge-triggered: a failing accept() is tried again when a client comes or goes, not at once.
  DM_TRY_STATUS(watch(epoll, listener.fd(), EPOLLIN | EPOLLET, kListenerKey));
  return std::make_unique<Server>(Private{}, std::move(options), std::move(listener),
                                  std::move(epoll), std::move(wake), open_reserve());
}

Server::~Server() {
  stop();
}

Status Server::start(RequestHandler handler) {
  handler_ = std::move(handler);
  try {
    acceptor_ = std::thread([this] { run(); });
  } catch (const std::system_error& e) {
    return errno_error("cannot start a thread", e.code().value());
  }
  return {};
}

void Server::wake() {
  uint64_t one = 1;
  [[maybe_unused]] ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

void Server::run() {
  std::array<epoll_event, 64> events;
  for (;;) {
    int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), -1);
    for (int i = 0; i < count; ++i) {
      uint64_t key = events[i].data.u64;
      if (key == kWakeKey) {
        uint64_t value;
        [[maybe_unused]] ssize_t got = ::read(wake_.get(), &value, sizeof(value));
      } else if (key != kListenerKey) {
        peer_gone(key);
      }
    }
    join_finished();
    {
      MutexLock lock(mutex_);
      if (stopping_) return;
    }
    accept_clients();
  }
}

void Server::accept_clients() {
  for (int i = 0; i < kMaxAccepts; ++i) {
    Fd fd(::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    if (fd) {
      admit(std::move(fd));
      continue;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno == EAGAIN) return;
    if ((errno != EMFILE && errno != ENFILE) || !reserve_) {
      spdlog::warn("control: accept: {}", errno_name(errno));
      return;
    }
    // Without a free descriptor accept() does not even say whether somebody is there.
    int code = errno;
    reserve_.reset();
    Fd refused(::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    bool somebody = bool(refused);
    if (somebody) {
      spdlog::warn("control: refused a client: {}", errno_name(code));
      refuse(refused.get(), code, "the daemon has run out of file descriptors");
      refused.reset();
    }
    reserve_ = open_reserve();
    if (!somebody) return;
  }
  wake();  // there may be more
}

void Server::admit(Fd fd) {
  ucred credentials{};
  socklen_t length = sizeof(credentials);
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    refuse(fd.get(), EACCES, "cannot tell who is calling");
    return;
  }
  if (credentials.uid != 0 && credentials.uid != options_.allowed_uid) {
    spdlog::warn("control: refused uid {} (pid {})", credentials.uid, credentials.pid);
    refuse(fd.get(), EACCES,
           "uid " + std::to_string(credentials.uid) + " may not use this daemon of uid " +
               std::to_string(options_.allowed_uid));
    return;
  }
  Peer peer{credentials.pid, credentials.uid};
  auto connection = std::make_shared<Connection>(std::move(fd), peer, options_.max_message,
                                                 options_.send_timeout);
  Status added = add_client(connection);
  if (added) return;
  spdlog::warn("control: refused pid {}: {}", peer.pid, added.error().message);
  refuse(connection->fd(), added.error().code, added.error().message);
}

Status Server::add_client(const std::shared_ptr<Connection>& connection) {
  uint64_t key = next_key_++;
  MutexLock lock(mutex_);
  if (clients_.size() >= options_.max_clients) {
    return Error{EAGAIN, "too many clients (" + std::to_string(clients_.size()) + ")"};
  }
  DM_TRY_STATUS(watch(epoll_, connection->fd(), kHangUpOnly, key));
  // The thread's end needs mutex_, so it finds its entry complete.
  auto entry = clients_.emplace(key, Client{connection, {}}).first;
  try {
    entry->second.thread = std::thread([this, key, connection] { serve(key, connection); });
  } catch (const std::system_error& e) {
    clients_.erase(entry);
    return errno_error("cannot start a thread", e.code().value());
  }
  return {};
}

void Server::serve(uint64_t key, const std::shared_ptr<Connection>& connection) {
  connection->serve(handler_);
  Client client;
  {
    MutexLock lock(mutex_);
    auto it = clients_.find(key);
    client = std::move(it->second);
    clients_.erase(it);
    finished_.push_back(std::move(client.thread));
    client_gone_.notify_all();
  }
  wake();
}

void Server::peer_gone(uint64_t key) {
  std::shared_ptr<Connection> connection;
  {
    MutexLock lock(mutex_);
    auto it = clients_.find(key);
    if (it != clients_.end()) connection = it->second.connection;
  }
  if (connection) connection->peer_gone();
}

void Server::join_finished() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(mutex_);
    threads.swap(finished_);
  }
  for (std::thread& thread : threads) thread.join();
}

std::vector<std::shared_ptr<Connection>> Server::connections() {
  MutexLock lock(mutex_);
  std::vector<std::shared_ptr<Connection>> all;
  all.reserve(clients_.size());
  for (auto& [key, client] : clients_) all.push_back(client.connection);
  return all;
}

void Server::stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  // 1. No new clients. 2. What runs is cancelled and answered. 3. Who does not take the answer is
  // cut off. 4. A thread that has left clients_ is in finished_, so none is missed.
  wake();
  if (acceptor_.joinable()) acceptor_.join();
  listener_.close();
  for (const auto& connection : connections()) connection->finish();
  {
    auto deadline = std::chrono::steady_clock::now() + options_.stop_grace;
    MutexLock lock(mutex_);
    while (!clients_.empty() && client_gone_.wait_until(mutex_, deadline)) {
    }
  }
  for (const auto& connection : connections()) connection->abort();
  {
    MutexLock lock(mutex_);
    while (!clients_.empty()) client_gone_.wait(mutex_);
  }
  join_finished();
}

}  // namespace dmfs
