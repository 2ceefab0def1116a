// SPDX-License-Identifier: Apache-2.0
// dmctl: the command line of dmfs.
#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "core/base/paths.h"
#include "core/control/client.h"

namespace {

using dmfs::Client;
using dmfs::Result;
using dmfs::cli::Session;

Result<std::string> socket_path(const dmfs::cli::Options& options) {
  if (options.socket) return *options.socket;
  dmfs::Paths paths = dmfs::default_paths(dmfs::process_environment());
  if (!paths.shared_folder.empty() && paths.socket.starts_with(paths.shared_folder + "/")) {
    DM_TRY_STATUS(dmfs::check_private_folder(paths.shared_folder));
  }
  return paths.socket;
}

Result<Session::Call> connect(const dmfs::cli::Options& options) {
  DM_TRY(std::string path, socket_path(options));
  DM_TRY(Client client, Client::connect(path));
  // Shared, because std::function wants something to copy.
  auto shared = std::make_shared<Client>(std::move(client));
  return Session::Call([shared](std::string_view method, const nlohmann::json& params) {
    return shared->call(method, params);
  });
}

}  // namespace

int main(int argc, char** argv) {
  auto options = dmfs::cli::parse_options(argc, argv);
  if (!options) {
    if (!options.error().message.empty()) {
      fmt::print(stderr, "{}\n", options.error().message);
    }
    fmt::print(stderr, "Couldn't process command line.\n");
    return 1;
  }
  Session session(*options, [&options] { return connect(*options); });
  int status = dmfs::cli::run_command(session);
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) {
    std::fputs("cannot write to standard output\n", stderr);
    return 1;
  }
  return status;
}
