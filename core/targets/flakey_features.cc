// SPDX-License-Identifier: Apache-2.0
#include "core/targets/flakey_features.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

namespace dmfs {
namespace {

constexpr uint64_t kMaxWords = 17;  // every feature once
constexpr uint64_t kMaxSenseKey = 15;

// Reads the features one by one.
class Parser {
 public:
  explicit Parser(std::span<const std::string> words) : args_("flakey", words) {}

  Result<FlakeyFeatures> parse() {
    while (args_.left() > 0) {
      DM_TRY(std::string name, args_.word({}));
      DM_TRY_STATUS(feature(name));
    }
    DM_TRY_STATUS(check());
    return features_;
  }

 private:
  using Read = Status (Parser::*)();
  struct Feature {
    std::string_view name;
    Read read;
  };

  Status feature(const std::string& name) {
    static constexpr Feature kFeatures[] = {
        {"error_reads", &Parser::error_reads},
        {"drop_writes", &Parser::drop_writes},
        {"error_writes", &Parser::error_writes},
        {"corrupt_bio_byte", &Parser::corrupt_bio_byte},
        {"random_read_corrupt", &Parser::random_read_corrupt},
        {"random_write_corrupt", &Parser::random_write_corrupt},
        {"seed", &Parser::seed},
        {"error_sense", &Parser::error_sense},
    };
    for (const Feature& known : kFeatures) {
      if (same_word(name, known.name)) return (this->*known.read)();
    }
    return args_.fail("Unrecognised flakey feature requested", name);
  }

  Status error_reads() {
    if (features_.error_reads) return args_.fail("Feature error_reads duplicated");
    features_.error_reads = true;
    return {};
  }
  Status drop_writes() {
    if (features_.drop_writes) return args_.fail("Feature drop_writes duplicated");
    if (features_.error_writes) {
      return args_.fail("Feature drop_writes conflicts with feature error_writes");
    }
    features_.drop_writes = true;
    return {};
  }
  Status error_writes() {
    if (features_.error_writes) return args_.fail("Feature error_writes duplicated");
    if (features_.drop_writes) {
      return args_.fail("Feature error_writes conflicts with feature drop_writes");
    }
    features_.error_writes = true;
    return {};
  }
  // <Nth byte> <r|w> <value> <flags>
  Status corrupt_bio_byte() {
    constexpr std::string_view kDirection = "Invalid corrupt bio direction (r or w)";
    if (args_.left() == 0) return args_.fail("Feature corrupt_bio_byte requires parameters");
    DM_TRY(uint64_t byte, args_.number("Invalid corrupt bio byte", 1, UINT32_MAX));
    DM_TRY(std::string direction, args_.word(kDirection));
    bool write = same_word(direction, "w");
    if (!write && !same_word(direction, "r")) return args_.fail(kDirection, direction);
    DM_TRY(uint64_t value,
           args_.number("Invalid corrupt value to write into bio byte (0-255)", 0, UINT8_MAX));
    DM_TRY(uint64_t flags, args_.number("Invalid corrupt bio flags mask", 0, UINT32_MAX));
    features_.corrupt_byte = {static_cast<uint32_t>(byte), write ? Op::Write : Op::Read,
                              static_cast<uint8_t>(value), static_cast<uint32_t>(flags)};
    return {};
  }
  Status random_read_corrupt() {
    return probability("Feature random_read_corrupt requires a parameter",
                       features_.random_read_corrupt);
  }
  Status random_write_corrupt() {
    return probability("Feature random_write_corrupt requires a parameter",
                       features_.random_write_corrupt);
  }
  Status probability(std::string_view missing, uint32_t& into) {
    if (args_.left() == 0) return args_.fail(missing);
    DM_TRY(uint64_t n, args_.number("Invalid random corrupt argument", 0, FlakeyFeatures::kAlways));
    into = static_cast<uint32_t>(n);
    return {};
  }
  Status seed() {
    if (features_.seed) return args_.fail("Feature seed duplicated");
    if (args_.left() == 0) return args_.fail("Feature seed requires a parameter");
    DM_TRY(uint64_t seed, args_.number("Invalid seed"));
    features_.seed = seed;
    return {};
  }
  // <key> <asc> <ascq>
  Status error_sense() {
    if (features_.error_sense) return args_.fail("Feature error_sense duplicated");
    if (args_.left() == 0) return args_.fail("Feature error_sense requires parameters");
    DM_TRY(uint8_t key, sense_number("Invalid sense key (0-15)", kMaxSenseKey));
    DM_TRY(uint8_t asc, sense_number("Invalid additional sense code (0-255)", UINT8_MAX));
    DM_TRY(uint8_t ascq, sense_number("Invalid sense code qualifier (0-255)", UINT8_MAX));
    features_.error_sense = {key, asc, ascq, true};
    return {};
  }
  // Decimal, or hexadecimal behind 0x.
  Result<uint8_t> sense_number(std::string_view what, uint64_t max) {
    DM_TRY(std::string word, args_.word(what));
    uint64_t value = 0;
    bool good = false;
    if (word.starts_with("0x") || word.starts_with("0X")) {
      const char* end = word.data() + word.size();
      auto [stop, error] = std::from_chars(word.data() + 2, end, value, 16);
      good = error == std::errc{} && stop == end;
    } else {
      good = parse_u64(word, value);
    }
    if (!good || value > max) return args_.fail(what, word);
    return static_cast<uint8_t>(value);
  }

  // What does not go together. The first two have one text in Linux 6.1, for what it has, and
  // another one since, for more.
  Status check() const {
    const auto& corrupt = features_.corrupt_byte;
    bool fixed_write = corrupt && corrupt->direction == Op::Write;
    bool fixed_read = corrupt && corrupt->direction == Op::Read;
    for (auto [set, name] : {std::pair{features_.drop_writes, "drop_writes"},
                             std::pair{features_.error_writes, "error_writes"}}) {
      if (!set) continue;
      if (fixed_write) {
        return args_.fail(
            fmt::format("{} is incompatible with corrupt_bio_byte with the WRITE flag set", name));
      }
      if (features_.random_write_corrupt > 0) {
        return args_.fail(
            fmt::format("{} is incompatible with random_write_corrupt or "
                        "corrupt_bio_byte with the WRITE flag set",
                        name));
      }
    }
    if (features_.error_reads && (fixed_read || features_.random_read_corrupt > 0)) {
      return args_.fail(
          "error_reads is incompatible with random_read_corrupt or "
          "corrupt_bio_byte with the READ flag set");
    }
    return {};
  }

  ArgReader args_;
  FlakeyFeatures features_;
};

}  // namespace

Result<FlakeyFeatures> FlakeyFeatures::parse(std::span<const std::string> words) {
  constexpr std::string_view kCount = "Invalid number of feature args";
  if (words.empty()) return FlakeyFeatures();
  ArgReader args("flakey", words);
  DM_TRY(uint64_t count, args.number(kCount, 0, kMaxWords));
  if (count > args.left()) return args.fail(kCount, words[0]);
  return Parser(words.subspan(1, count)).parse();
}

std::string FlakeyFeatures::print() const {
  std::string out;
  size_t words = 0;
  auto add = [&](std::string text) {
    words += 1 + static_cast<size_t>(std::count(text.begin(), text.end(), ' '));
    out += text + ' ';
  };
  if (error_reads) add("error_reads");
  if (drop_writes) add("drop_writes");
  if (error_writes) add("error_writes");
  if (corrupt_byte) {
    add(fmt::format("corrupt_bio_byte {} {} {} {}", corrupt_byte->byte,
                    corrupt_byte->direction == Op::Write ? 'w' : 'r', corrupt_byte->value,
                    corrupt_byte->flags));
  }
  if (random_read_corrupt > 0) add(fmt::format("random_read_corrupt {}", random_read_corrupt));
  if (random_write_corrupt > 0) add(fmt::format("random_write_corrupt {}", random_write_corrupt));
  if (seed) add(fmt::format("seed {}", *seed));
  if (error_sense) {
    add(fmt::format("error_sense {:#x} {:#x} {:#x}", error_sense->key, error_sense->asc,
                    error_sense->ascq));
  }
  return fmt::format("{} {}", words, out);
}

}  // namespace dmfs
