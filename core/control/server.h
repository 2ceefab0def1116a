// SPDX-License-Identifier: Apache-2.0
// The daemon's end of the control socket. Knows lines of JSON and clients, not commands.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/base/mutex.h"
#include "core/base/result.h"
#include "core/control/connection.h"
#include "core/control/listener.h"
#include "core/control/protocol.h"

namespace dmfs {

inline constexpr size_t kMaxClients = 256;

struct ServerOptions {
  std::string socket_path{};
  mode_t mode = 0600;
  uid_t allowed_uid = ::geteuid();  // besides root
  size_t max_clients = kMaxClients;
  size_t max_message = kMaxMessage;
  // A client that for so long takes nothing of its reply is dropped.
  std::chrono::milliseconds send_timeout{30000};
  // How long stop() lets clients take their last replies.
  std::chrono::milliseconds stop_grace{2000};
};

// One thread accepts clients and sees them hang up; each client has a thread of its own, so a
// command that waits holds up only its client. Nothing wakes while nothing happens.
class Server {
  struct Private {};

 public:
  // Binds the socket (see Listener for the errors) and starts no thread, so the process may still
  // fork; clients can connect at once and wait for start().
  static Result<std::unique_ptr<Server>> listen(ServerOptions options);
  Server(Private, ServerOptions options, Listener listener, Fd epoll, Fd wake, Fd reserve);
  ~Server();  // stop()

  // Serves from now on. Once.
  Status start(RequestHandler handler);
  // Unlinks the socket, cancels what runs, lets the replies out (see stop_grace), and
  // joins all threads. Any thread but a handler's: a handler that wants to stop tells another.
  // Idempotent; not concurrently with itself.
  void stop();

 private:
  struct Client {
    // Shared by its thread and by whoever has just looked it up to cancel it.
    std::shared_ptr<Connection> connection;
    std::thread thread;
  };

  void run();
  void wake();
  void accept_clients();
  void admit(Fd fd);
  Status add_client(const std::shared_ptr<Connection>& connection);
  void serve(uint64_t key, const std::shared_ptr<Connection>& connection);
  void peer_gone(uint64_t key);
  void join_finished();
  std::vector<std::shared_ptr<Connection>> connections();

  // Constant after construction (the handler: after start()).
  const ServerOptions options_;
  const Fd epoll_;
  const Fd wake_;  // an eventfd
  RequestHandler handler_;
  // The accepting thread's, and stop()'s once that has ended.
  Listener listener_;
  Fd reserve_;  // given up for a moment to refuse a client when descriptors have run out
  uint64_t next_key_;
  // The thread of start() and stop().
  std::thread acceptor_;

  // Taken alone; no other lock is taken while it is held.
  Mutex mutex_;
  CondVar client_gone_;
  bool stopping_ DM_GUARDED_BY(mutex_) = false;
  std::map<uint64_t, Client> clients_ DM_GUARDED_BY(mutex_);
  std::vector<std::thread> finished_ DM_GUARDED_BY(mutex_);  // to be joined
};

}  // namespace dmfs
