// SPDX-License-Identifier: Apache-2.0
// The JSON-RPC door to the command layer: checks parameters, calls, and puts the answer into
// words. Knows no sockets. The methods are in the control protocol's manual.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/cancel.h"
#include "core/base/result.h"
#include "core/control/param_reader.h"
#include "core/dm/commands.h"

namespace dmfs {

// What the daemon knows and the core does not.
struct DaemonHooks {
  std::string mount;  // for `version`
  std::string store;
  std::string engine;  // how files are read and written, in a line
  // Makes the daemon end, or refuses (EBUSY: in use); must not wait for the end (the server cannot
  // stop on one of its threads).
  std::function<Status()> shutdown;
};

// Any thread, many at a time.
class Dispatcher {
 public:
  // `commands` must outlive it.
  Dispatcher(Commands& commands, DaemonHooks hooks)
      : commands_(commands), hooks_(std::move(hooks)) {}

  // Any JSON value; always a reply. Blocks as long as the command does; `cancel` ends the waiting
  // ones (suspend, resume, wait).
  nlohmann::json handle(const nlohmann::json& request, CancelToken& cancel);

 private:
  using Reply = Result<nlohmann::json>;
  using Method = Reply (Dispatcher::*)(ParamReader& params, CancelToken& cancel);
  struct Entry;
  static const Entry kMethods[];

  Reply version(ParamReader& params, CancelToken& cancel);
  Reply create(ParamReader& params, CancelToken& cancel);
  Reply remove(ParamReader& params, CancelToken& cancel);
  Reply remove_all(ParamReader& params, CancelToken& cancel);
  Reply rename(ParamReader& params, CancelToken& cancel);
  Reply suspend(ParamReader& params, CancelToken& cancel);
  Reply resume(ParamReader& params, CancelToken& cancel);
  Reply why(ParamReader& params, CancelToken& cancel);
  Reply paths(ParamReader& params, CancelToken& cancel);
  Reply fail_held(ParamReader& params, CancelToken& cancel);
  Reply status(ParamReader& params, CancelToken& cancel);
  Reply load(ParamReader& params, CancelToken& cancel);
  Reply clear(ParamReader& params, CancelToken& cancel);
  Reply table(ParamReader& params, CancelToken& cancel);
  Reply table_status(ParamReader& params, CancelToken& cancel);
  Reply deps(ParamReader& params, CancelToken& cancel);
  Reply list(ParamReader& params, CancelToken& cancel);
  Reply targets(ParamReader& params, CancelToken& cancel);
  Reply message(ParamReader& params, CancelToken& cancel);
  Reply wait(ParamReader& params, CancelToken& cancel);
  Reply set_geometry(ParamReader& params, CancelToken& cancel);
  Reply shutdown(ParamReader& params, CancelToken& cancel);

  Commands& commands_;  // own synchronisation
  const DaemonHooks hooks_;
};

}  // namespace dmfs
