// SPDX-License-Identifier: Apache-2.0
// The caller's end of the control socket: blocking, one request at a time.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "core/control/line_reader.h"
#include "core/control/socket.h"

namespace dmfs {

// One thread at a time. Destroying it closes the connection, which ends a command that waits.
class Client {
 public:
  // "no dmfs daemon at PATH: ..." with ENOENT or ECONNREFUSED when nobody listens there.
  static Result<Client> connect(const std::string& socket_path);

  // Sends one command and waits for its reply, as long as it takes. The Error is the daemon's (its
  // errno, its sentence); ECONNRESET when the daemon has gone away, EPROTO when it talks nonsense.
  // Once the daemon has closed the connection every later call fails with ENOTCONN.
  Result<nlohmann::json> call(std::string_view method,
                              const nlohmann::json& params = nlohmann::json::object());

 private:
  explicit Client(Fd fd);
  Result<std::string> read_line(std::string_view method);

  Fd fd_;
  LineReader lines_;
  uint64_t next_id_ = 1;
};

}  // namespace dmfs
