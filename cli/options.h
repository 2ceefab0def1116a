// SPDX-License-Identifier: Apache-2.0
// The command line. As with dmsetup, every option may stand before, between or after the words, and
// each command looks only at the options that mean something to it.
//
// This uses getopt_long, not CLI11: scripts written for dmsetup rely on what getopt does (shortened
// long options, clustered short ones, "--" and its very messages, which golden/ records).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cli/mangle.h"
#include "cli/output.h"
#include "cli/tree.h"
#include "core/base/result.h"

namespace dmfs::cli {

struct Options {
  std::string program = "dmctl";   // the name we were called by, without its folder
  std::vector<std::string> words;  // the command, then its arguments

  bool help = false;
  bool version = false;
  int verbose = 0;
  bool json = false;
  std::optional<std::string> socket;  // --socket
  Mangling mangling = Mangling::Auto;

  // Which device, when not by name.
  std::optional<std::string> uuid;
  std::optional<uint32_t> major;
  std::optional<uint32_t> minor;

  bool force = false;  // for mount: stay in the foreground
  bool read_only = false;
  bool ordered = false;
  bool no_table = false;
  std::optional<std::string> table;
  std::optional<std::string> read_ahead;
  bool noflush = false;
  bool nolockfs = false;
  std::optional<uint32_t> timeout_ms;  // suspend, wait --synced
  bool synced = false;                 // wait
  bool inactive = false;
  bool retry = false;
  bool deferred = false;
  bool set_uuid = false;
  bool concise = false;
  bool tree = false;
  std::optional<std::string> target;

  std::vector<std::string> o;  // every -o, in order: fields, name forms or mount options
  bool columns = false;
  std::string sort;
  std::optional<std::string> separator;
  bool no_headings = false;
  bool name_prefixes = false;
  bool unquoted = false;
  bool rows = false;

  std::optional<std::string> store;  // mount

  // lab: its own options, without the dashes, and their values.
  std::map<std::string, std::string> lab;

  // From -o, when the command is ls or deps.
  NameForm name_form = NameForm::DevNo;
  TreeOptions tree_options;
};

// May write to stderr (getopt's own complaints); then the Error's message is empty. Not
// thread-safe: getopt has globals.
Result<Options> parse_options(int argc, char** argv);

}  // namespace dmfs::cli
