// SPDX-License-Identifier: Apache-2.0
// One client of the control socket: reads its requests and answers them in order.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/cancel.h"
#include "core/control/line_reader.h"
#include "core/control/protocol.h"
#include "core/control/socket.h"

namespace dmfs {

struct Peer {
  pid_t pid = 0;  // in our pid namespace; 0 when it is not in it
  uid_t uid = 0;
};

// Turns a request (any JSON value) into its reply. Called on the connection's thread, many at a
// time; may block, and then ends early when `cancel` fires: the client is gone or the server stops.
using RequestHandler = std::function<nlohmann::json(const nlohmann::json& request,
                                                    CancelToken& cancel, const Peer& peer)>;

// serve() belongs to the connection's thread, the others to anybody.
class Connection {
 public:
  Connection(Fd fd, Peer peer, size_t max_message, std::chrono::milliseconds send_timeout);

  // Until the client has closed, sent rubbish that cannot be skipped, or takes no reply.
  void serve(const RequestHandler& handler);

  int fd() const { return fd_.get(); }
  // The client has closed its end for reading too: what it waits for is cancelled. A client that
  // only has nothing more to send (shutdown(SHUT_WR), as `nc -N`) still gets its replies.
  void peer_gone() { cancel_.cancel(); }
  // No more requests; the one that runs is cancelled, and still answered.
  void finish();
  // As finish(), without a chance for the last reply.
  void abort();

 private:
  std::string answer(std::string line, const RequestHandler& handler);

  // Constant after construction.
  const Fd fd_;
  const Peer peer_;
  const std::chrono::milliseconds send_timeout_;
  // The serving thread's.
  LineReader lines_;
  // Own synchronisation.
  CancelToken cancel_;
  std::atomic<bool> finishing_{false};
};

}  // namespace dmfs
