// SPDX-License-Identifier: Apache-2.0
#include "cli/options.h"

#include <fmt/format.h>
#include <getopt.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>

namespace dmfs::cli {
namespace {

// Long options without a short one.
enum LongOption : int {
  kConcise = 256,
  kDeferred,
  kIgnored,
  kIgnoredValue,
  kInactive,
  kJson,
  kLab,
  kMangleName,
  kNamePrefixes,
  kNoFlush,
  kOrdered,
  kNoHeadings,
  kNoLockFs,
  kReadAhead,
  kRetry,
  kRows,
  kSeparator,
  kSetUuid,
  kSocket,
  kStore,
  kTable,
  kTarget,
  kSynced,
  kTimeout,
  kTree,
  kUnquoted,
  kVersionOption,
};

constexpr char kShortOptions[] = "cCfG:hj:m:M:no:O:ru:U:vy";

const option kLongOptions[] = {
    {"addnodeoncreate", no_argument, nullptr, kIgnored},
    {"addnodeonresume", no_argument, nullptr, kIgnored},
    {"checks", no_argument, nullptr, kIgnored},
    {"columns", no_argument, nullptr, 'c'},
    {"concise", no_argument, nullptr, kConcise},
    {"deferred", no_argument, nullptr, kDeferred},
    {"force", no_argument, nullptr, 'f'},
    {"foreground", no_argument, nullptr, 'f'},
    {"gid", required_argument, nullptr, 'G'},
    {"help", no_argument, nullptr, 'h'},
    {"inactive", no_argument, nullptr, kInactive},
    {"json", no_argument, nullptr, kJson},
    {"major", required_argument, nullptr, 'j'},
    {"manglename", required_argument, nullptr, kMangleName},
    {"minor", required_argument, nullptr, 'm'},
    {"mode", required_argument, nullptr, 'M'},
    {"nameprefixes", no_argument, nullptr, kNamePrefixes},
    {"noflush", no_argument, nullptr, kNoFlush},
    {"noheadings", no_argument, nullptr, kNoHeadings},
    {"nolockfs", no_argument, nullptr, kNoLockFs},
    {"noopencount", no_argument, nullptr, kIgnored},
    {"notable", no_argument, nullptr, 'n'},
    {"noudevrules", no_argument, nullptr, kIgnored},
    {"noudevsync", no_argument, nullptr, kIgnored},
    {"options", required_argument, nullptr, 'o'},
    {"ordered", no_argument, nullptr, kOrdered},
    {"readahead", required_argument, nullptr, kReadAhead},
    {"readonly", no_argument, nullptr, 'r'},
    {"retry", no_argument, nullptr, kRetry},
    {"rows", no_argument, nullptr, kRows},
    {"separator", required_argument, nullptr, kSeparator},
    {"setuuid", no_argument, nullptr, kSetUuid},
    {"showkeys", no_argument, nullptr, kIgnored},
    {"socket", required_argument, nullptr, kSocket},
    {"sort", required_argument, nullptr, 'O'},
    {"store", required_argument, nullptr, kStore},
    {"synced", no_argument, nullptr, kSynced},
    {"table", required_argument, nullptr, kTable},
    {"target", required_argument, nullptr, kTarget},
    {"timeout", required_argument, nullptr, kTimeout},
    {"tree", no_argument, nullptr, kTree},
    {"udevcookie", required_argument, nullptr, kIgnoredValue},
    {"uid", required_argument, nullptr, 'U'},
    {"unquoted", no_argument, nullptr, kUnquoted},
    {"uuid", required_argument, nullptr, 'u'},
    {"verbose", no_argument, nullptr, 'v'},
    {"verifyudev", no_argument, nullptr, kIgnored},
    {"version", no_argument, nullptr, kVersionOption},
    {"yes", no_argument, nullptr, 'y'},
    {},
};

// For `lab` only: elsewhere they would make shortened options of dmsetup's ambiguous.
constexpr option kLabOptions[] = {
    {"alua", no_argument, nullptr, kLab},        {"controllers", required_argument, nullptr, kLab},
    {"create", no_argument, nullptr, kLab},      {"emc", no_argument, nullptr, kLab},
    {"file", required_argument, nullptr, kLab},  {"hp_sw", no_argument, nullptr, kLab},
    {"implicit", no_argument, nullptr, kLab},    {"paths", required_argument, nullptr, kLab},
    {"rdac", no_argument, nullptr, kLab},        {"size", required_argument, nullptr, kLab},
    {"slow", required_argument, nullptr, kLab},
};

Result<uint32_t> parse_number(std::string_view what, std::string_view word) {
  uint32_t value = 0;
  auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (word.empty() || error != std::errc() || end != word.data() + word.size()) {
    return Error{EINVAL, fmt::format("Invalid {} number '{}'.", what, word)};
  }
  return value;
}

// Seconds with a fraction, as milliseconds.
Result<uint32_t> parse_seconds(std::string_view word) {
  double seconds = 0;
  auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), seconds);
  bool whole = !word.empty() && error == std::errc() && end == word.data() + word.size();
  if (!whole || !(seconds >= 0) || seconds > UINT32_MAX / 1000.0) {
    return Error{EINVAL, fmt::format("Invalid timeout '{}': seconds are expected.", word)};
  }
  return static_cast<uint32_t>(seconds * 1000);
}

Status set_mangling(Options& options, std::string_view word) {
  auto mode = parse_mangling(word);
  if (!mode) return Error{EINVAL, fmt::format("Unknown name mangling mode '{}'.", word)};
  options.mangling = *mode;
  return {};
}

Status take(Options& o, int code, const char* value) {
  switch (code) {
    case 'c':
    case 'C':
      o.columns = true;
      break;
    case 'f':
      o.force = true;
      break;
    case 'h':
      o.help = true;
      break;
    case 'j': {
      DM_TRY(o.major, parse_number("major", value));
      break;
    }
    case 'm': {
      DM_TRY(o.minor, parse_number("minor", value));
      break;
    }
    case 'n':
      o.no_table = true;
      break;
    case 'o':
      o.o.push_back(value);
      break;
    case 'O':
      o.sort = value;
      break;
    case 'r':
      o.read_only = true;
      break;
    case kOrdered:
      o.ordered = true;
      break;
    case 'u':
      o.uuid = value;
      break;
    case 'v':
      o.verbose++;
      break;
    case kConcise:
      o.concise = true;
      break;
    case kDeferred:
      o.deferred = true;
      break;
    case kInactive:
      o.inactive = true;
      break;
    case kJson:
      o.json = true;
      break;
    case kMangleName:
      return set_mangling(o, value);
    case kNamePrefixes:
      o.name_prefixes = true;
      break;
    case kNoFlush:
      o.noflush = true;
      break;
    case kNoHeadings:
      o.no_headings = true;
      break;
    case kNoLockFs:
      o.nolockfs = true;
      break;
    case kReadAhead:
      o.read_ahead = value;
      break;
    case kRetry:
      o.retry = true;
      break;
    case kRows:
      o.rows = true;
      break;
    case kSeparator:
      o.separator = value;
      break;
    case kSetUuid:
      o.set_uuid = true;
      break;
    case kSocket:
      o.socket = value;
      break;
    case kStore:
      o.store = value;
      break;
    case kTable:
      o.table = value;
      break;
    case kTarget:
      o.target = value;
      break;
    case kSynced:
      o.synced = true;
      break;
    case kTimeout: {
      DM_TRY(o.timeout_ms, parse_seconds(value));
      break;
    }
    case kTree:
      o.tree = true;
      break;
    case kUnquoted:
      o.unquoted = true;
      break;
    case kVersionOption:
      o.version = true;
      break;
    case 'G':
    case 'M':
    case 'U':
    case 'y':
    case kIgnored:
    case kIgnoredValue:
      break;  // udev and device nodes: there are none here
    default:
      return Error{EINVAL, ""};  // getopt has complained
  }
  return {};
}

// The words of -o for ls and deps.
Status take_name_form(Options& o, std::string_view word) {
  TreeOptions& tree = o.tree_options;
  if (word == "devno") {
    o.name_form = NameForm::DevNo;
  } else if (word == "devname") {
    o.name_form = NameForm::DevName;
  } else if (word == "blkdevname") {
    o.name_form = NameForm::BlkDevName;
    tree.block_name = true;
  } else if (word == "device") {
    tree.device = true;
  } else if (word == "nodevice") {
    tree.device = false;
  } else if (word == "active") {
    tree.active = true;
  } else if (word == "open") {
    tree.open = true;
  } else if (word == "rw") {
    tree.rw = true;
  } else if (word == "uuid") {
    tree.uuid = true;
  } else if (word == "compact") {
    tree.compact = true;
  } else if (word == "inverted") {
    tree.inverted = true;
  } else if (word == "utf") {
    tree.utf = true;
  } else if (word == "ascii" || word == "vt100") {
    tree.utf = false;
  } else if (word != "notrunc" && word != "trunc") {  // lines are never cut
    return Error{EINVAL, fmt::format("Option not recognised: {}.", word)};
  }
  return {};
}

Status take_name_forms(Options& o) {
  for (std::string_view list : o.o) {
    while (!list.empty()) {
      size_t end = std::min(list.find(','), list.size());
      DM_TRY_STATUS(take_name_form(o, list.substr(0, end)));
      list.remove_prefix(std::min(end + 1, list.size()));
    }
  }
  return {};
}

Status check(const Options& o) {
  if (o.major.has_value() != o.minor.has_value()) {
    return Error{EINVAL, "Please specify both major number and minor number."};
  }
  if (o.no_table && o.table) return Error{EINVAL, "--table and --notable are incompatible."};
  return {};
}

}  // namespace

Result<Options> parse_options(int argc, char** argv) {
  Options options;
  std::string_view program = argc > 0 ? argv[0] : "dmctl";
  options.program = program.substr(program.rfind('/') + 1);
  if (const char* mode = std::getenv("DM_DEFAULT_NAME_MANGLING_MODE")) {
    DM_TRY_STATUS(set_mangling(options, mode));
  }
  // getopt begins its complaints with argv[0].
  std::string name = options.program;
  std::vector<char*> args(argv, argv + argc);
  if (!args.empty()) args[0] = name.data();
  args.push_back(nullptr);
  std::vector<option> known(std::begin(kLongOptions), std::end(kLongOptions));
  bool lab = std::find(argv + std::min(argc, 1), argv + argc, std::string_view("lab")) != argv + argc;
  if (lab) known.insert(known.begin(), std::begin(kLabOptions), std::end(kLabOptions));
  optind = 0;  // begin anew, whatever an earlier call left
  int code, at = 0;
  while ((code = getopt_long(argc, args.data(), kShortOptions, known.data(), &at)) != -1) {
    if (code == kLab) {
      options.lab[known[static_cast<size_t>(at)].name] = optarg ? optarg : "";
    } else {
      DM_TRY_STATUS(take(options, code, optarg));
    }
  }
  for (int i = optind; i < argc; i++) options.words.push_back(args[static_cast<size_t>(i)]);
  DM_TRY_STATUS(check(options));
  if (!options.words.empty() && (options.words[0] == "ls" || options.words[0] == "deps")) {
    DM_TRY_STATUS(take_name_forms(options));
  }
  return options;
}

}  // namespace dmfs::cli
