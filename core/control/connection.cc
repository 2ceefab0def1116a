// SPDX-License-Identifier: Apache-2.0
#include "core/control/connection.h"

#include <spdlog/spdlog.h>

#include <exception>
#include <new>
#include <utility>
#include <vector>

namespace dmfs {

using nlohmann::json;

namespace {
constexpr size_t kReadSize = 65536;
}

Connection::Connection(Fd fd, Peer peer, size_t max_message, std::chrono::milliseconds send_timeout)
    : fd_(std::move(fd)), peer_(peer), send_timeout_(send_timeout), lines_(max_message) {}

std::string Connection::answer(std::string line, const RequestHandler& handler) {
  auto request = parse_json(line);
  line = {};  // not while a command waits
  if (!request) return to_line(error_reply(nullptr, RpcCode::Parse, request.error()));
  return to_line(handler(*request, cancel_, peer_));
}

void Connection::serve(const RequestHandler& handler) {
  std::vector<char> buffer(kReadSize);
  while (!finishing_.load(std::memory_order_acquire)) {
    std::string reply;
    bool last = false;
    // The one place where memory may run out because of what a client asks for.
    try {
      auto line = lines_.next();
      if (!line) {
        reply = to_line(error_reply(nullptr, RpcCode::InvalidRequest, line.error()));
        last = true;
      } else if (*line) {
        reply = answer(std::move(**line), handler);
      } else {
        auto got = receive(fd_.get(), buffer);
        if (!got) return;
        if (*got > 0) {
          lines_.feed({buffer.data(), *got});
          continue;
        }
        if (!lines_.in_line() || finishing_.load(std::memory_order_acquire)) return;
        reply = to_line(error_reply(nullptr, RpcCode::Parse,
                                    Error{EINVAL, "the message ends without a newline"}));
        last = true;
      }
    } catch (const std::bad_alloc&) {
      reply = to_line(error_reply(nullptr, RpcCode::CommandFailed,
                                  Error{ENOMEM, "the daemon is out of memory"}));
      last = true;
    } catch (const std::exception& e) {
      reply = to_line(error_reply(nullptr, RpcCode::CommandFailed,
                                  Error{EIO, std::string("the daemon failed: ") + e.what()}));
      last = true;
    }
    if (Status sent = send_all(fd_.get(), reply, send_timeout_); !sent) {
      spdlog::debug("control: dropped client pid {}: {}", peer_.pid, sent.error().message);
      return;
    }
    if (last) return;
  }
}

void Connection::finish() {
  finishing_.store(true, std::memory_order_release);
  cancel_.cancel();
  ::shutdown(fd_.get(), SHUT_RD);
}

void Connection::abort() {
  finish();
  ::shutdown(fd_.get(), SHUT_RDWR);
}

}  // namespace dmfs
