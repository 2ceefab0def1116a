// SPDX-License-Identifier: Apache-2.0
#include "core/control/client.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/control/protocol.h"

namespace dmfs {

using nlohmann::json;

Client::Client(Fd fd) : fd_(std::move(fd)), lines_(SIZE_MAX) {}

Result<Client> Client::connect(const std::string& socket_path) {
  DM_TRY(UnixAddress address, unix_address(socket_path));
  DM_TRY(Fd fd, unix_socket());
  while (::connect(fd.get(), address.get(), sizeof(address.raw)) != 0) {
    if (errno == EINTR) continue;
    int code = errno;
    if (code == ENOENT || code == ECONNREFUSED || code == ENOTDIR) {
      return errno_error("no dmfs daemon at " + socket_path, code);
    }
    return errno_error("cannot connect to " + socket_path, code);
  }
  return Client(std::move(fd));
}

Result<std::string> Client::read_line(std::string_view method) {
  std::array<char, 65536> buffer;
  for (;;) {
    DM_TRY(auto line, lines_.next());
    if (line) return std::move(*line);
    auto got = receive(fd_.get(), buffer);
    if (!got || *got == 0) {
      return Error{ECONNRESET, std::string(method) + ": the daemon closed the connection"};
    }
    lines_.feed({buffer.data(), *got});
  }
}

Result<json> Client::call(std::string_view method, const json& params) {
  if (!fd_) return Error{ENOTCONN, std::string(method) + ": the connection is closed"};
  uint64_t id = next_id_++;
  DM_TRY(std::string request, encode_request(id, method, params));
  // When the daemon has closed its end, it has said why: its words are still there to be read.
  Status sent = send_all(fd_.get(), request);
  auto line = read_line(method);
  if (!line) {
    fd_.reset();
    return line.error();
  }
  // A reply is as long as it has to be, so only its depth is bounded.
  auto message = parse_json(*line, {.max_values = SIZE_MAX});
  if (!message) {
    fd_.reset();
    return Error{EPROTO,
                 std::string(method) + ": the daemon's reply is " + message.error().message};
  }
  if (!sent) fd_.reset();
  return decode_reply(*std::move(message), id);
}

}  // namespace dmfs
