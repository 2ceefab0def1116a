// SPDX-License-Identifier: Apache-2.0
// The table lines of the built-in targets: what the kernel refuses, what it
// accepts and prints, and the lines of the manual.
#include <fstream>
#include <set>
#include <tuple>

#include "core/dm/table.h"
#include "tests/support/targets_fixture.h"

namespace dmfs::test {
namespace {

using TargetArgsTest = TargetsFixture;

struct Refusal {
  uint64_t length;
  const char* type;
  const char* params;
  int code;
  const char* message;
};

// golden/b-errors, with a, b, c for /dev/ram0, 1, 2; and our own limits.
const Refusal kRefusals[] = {
    {8, "zero", "extra", EINVAL, "zero: No arguments required: 'extra'"},
    {8, "error", "two words", EINVAL, "error: Invalid device sector: 'words'"},
    {8, "error", "nosuch 0", ENOENT,
     "error: Device lookup failed: 'nosuch': No such file or directory"},
    {8, "dust", "", EINVAL, "dust: Invalid argument count"},
    {8, "dust", "a 0", EINVAL, "dust: Invalid argument count"},
    {8, "dust", "a 0 512 512", EINVAL, "dust: Invalid argument count: '512'"},
    {8, "dust", "a 0 513", EINVAL, "dust: Block size must be a power of 2: '513'"},
    {8, "dust", "a 0 256", EINVAL, "dust: Block size must be at least 512: '256'"},
    {8, "dust", "a 0 0", EINVAL, "dust: Invalid block size parameter: '0'"},
    {8, "dust", "a 0 x", EINVAL, "dust: Invalid block size parameter: 'x'"},
    {8, "dust", "a 0 4294967296", EINVAL, "dust: Invalid block size parameter: '4294967296'"},
    {7, "dust", "a 0 4096", EINVAL, "dust: Block size is too large: '4096'"},
    {1ull << 40, "dust", "a 0 2147483648", EINVAL, "dust: Block size is too large: '2147483648'"},
    {8, "dust", "a x 512", EINVAL, "dust: Invalid device offset sector: 'x'"},
    {8, "dust", "nosuch 0 512", ENOENT,
     "dust: Device lookup failed: 'nosuch': No such file or directory"},
    {8, "linear", "", EINVAL, "linear: Invalid argument count"},
    {8, "linear", "a", EINVAL, "linear: Invalid argument count"},
    {8, "linear", "a 0 00", EINVAL, "linear: Invalid argument count: '00'"},
    {8, "linear", "a foo", EINVAL, "linear: Invalid device sector: 'foo'"},
    {8, "linear", "a -1", EINVAL, "linear: Invalid device sector: '-1'"},
    {8, "linear", "a 0x8", EINVAL, "linear: Invalid device sector: '0x8'"},
    {8, "linear", "a 8s", EINVAL, "linear: Invalid device sector: '8s'"},
    {8, "linear", "a 18446744073709551616", EINVAL,
     "linear: Invalid device sector: '18446744073709551616'"},
    {8, "linear", "/dev/nosuch 0", ENOENT,
     "linear: Device lookup failed: '/dev/nosuch': No such file or directory"},
    {8, "linear", "nosuch 0", ENOENT,
     "linear: Device lookup failed: 'nosuch': No such file or directory"},
    {8, "delay", "", EINVAL, "delay: Requires exactly 3, 6 or 9 arguments"},
    {8, "delay", "a 0", EINVAL, "delay: Requires exactly 3, 6 or 9 arguments"},
    {8, "delay", "a 0 10 b", EINVAL, "delay: Requires exactly 3, 6 or 9 arguments"},
    {8, "delay", "a 0 10 b 0", EINVAL, "delay: Requires exactly 3, 6 or 9 arguments"},
    {8, "delay", "a 0 10 b 0 5 c", EINVAL, "delay: Requires exactly 3, 6 or 9 arguments"},
    {8, "delay", "a 0 x", EINVAL, "delay: Invalid delay: 'x'"},
    {8, "delay", "a x 10", EINVAL, "delay: Invalid device sector: 'x'"},
    {8, "delay", "a 0 -1", EINVAL, "delay: Invalid delay: '-1'"},
    {8, "delay", "a 0 4294967296", EINVAL, "delay: Invalid delay: '4294967296'"},
    {8, "delay", "/dev/nosuch 0 10", ENOENT,
     "delay: Device lookup failed: '/dev/nosuch': No such file or directory"},
    {8, "delay", "a 0 10 /dev/nosuch 0 1", ENOENT,
     "delay: Device lookup failed: '/dev/nosuch': No such file or directory"},
    {8, "delay", "a 0 10 b 0 x", EINVAL, "delay: Invalid delay: 'x'"},
    {8, "hang", "a", EINVAL, "hang: Invalid argument count"},
    {8, "hang", "a 0 0", EINVAL, "hang: Invalid argument count: '0'"},
    {8, "hang", "a x", EINVAL, "hang: Invalid device sector: 'x'"},
    {8, "hang", "nosuch 0", ENOENT,
     "hang: Device lookup failed: 'nosuch': No such file or directory"},
    {2048, "striped", "", EINVAL, "striped: Not enough arguments"},
    {2048, "striped", "2", EINVAL, "striped: Not enough arguments"},
    {2048, "striped", "2 16", EINVAL, "striped: Not enough destinations specified"},
    {2048, "striped", "2 16 a 0 b", EINVAL, "striped: Not enough destinations specified"},
    {2048, "striped", "2 16 a 0 b 0 c 0", EINVAL,
     "striped: Not enough destinations specified: 'c'"},
    {2048, "striped", "0 16 a 0", EINVAL, "striped: Invalid stripe count: '0'"},
    {2048, "striped", "x 16 a 0 b 0", EINVAL, "striped: Invalid stripe count: 'x'"},
    {65536, "striped", "65536 1 a 0", EINVAL, "striped: Invalid stripe count: '65536'"},
    {2048, "striped", "4294967296 16 a 0", EINVAL, "striped: Invalid stripe count: '4294967296'"},
    {2048, "striped", "2 0 a 0 b 0", EINVAL, "striped: Invalid chunk_size: '0'"},
    {2048, "striped", "2 x a 0 b 0", EINVAL, "striped: Invalid chunk_size: 'x'"},
    {2048, "striped", "2 4294967296 a 0 b 0", EINVAL, "striped: Invalid chunk_size: '4294967296'"},
    {2048, "striped", "2 7 a 0 b 0", EINVAL,
     "striped: Target length not divisible by chunk size: '7'"},
    {50, "striped", "2 6 a 0 b 0", EINVAL,
     "striped: Target length not divisible by chunk size: '6'"},
    {2040, "striped", "2 16 a 0 b 0", EINVAL,
     "striped: Target length not divisible by chunk size: '16'"},
    {24, "striped", "2 8 a 0 b 0", EINVAL,
     "striped: Target length not divisible by chunk size: '8'"},
    {2047, "striped", "2 8 a 0 b 0", EINVAL,
     "striped: Target length not divisible by number of stripes: '2'"},
    {2048, "striped", "3 16 a 0 b 0 c 0", EINVAL,
     "striped: Target length not divisible by number of stripes: '3'"},
    {2048, "striped", "2 16 a 0 b x", EINVAL, "striped: Couldn't parse stripe destination: 'x'"},
    {2048, "striped", "2 16 a 0 /dev/nosuch 0", ENOENT,
     "striped: Couldn't parse stripe destination: '/dev/nosuch': No such file or directory"},
    {8, "throttle", "a", EINVAL, "throttle: Invalid argument count"},
    {8, "throttle", "a x", EINVAL, "throttle: Invalid device sector: 'x'"},
    {8, "throttle", "a 0 2", EINVAL, "throttle: Invalid number of settings: '2'"},
    {8, "throttle", "a 0 1 read_iops", EINVAL, "throttle: Invalid number of settings: '1'"},
    {8, "throttle", "a 0 2 read_iops 5 write_iops 5", EINVAL,
     "throttle: Invalid number of settings: '2'"},
    {8, "throttle", "a 0 12", EINVAL, "throttle: Invalid number of settings: '12'"},
    {8, "throttle", "a 0 read_iops 5", EINVAL, "throttle: Invalid number of settings: 'read_iops'"},
    {8, "throttle", "a 0 2 iops 5", EINVAL, "throttle: Unrecognised setting: 'iops'"},
    {8, "throttle", "a 0 2 read_iops -5", EINVAL, "throttle: Invalid read_iops: '-5'"},
    {8, "throttle", "a 0 2 write_bps 9007199254740993", EINVAL,
     "throttle: Invalid write_bps: '9007199254740993'"},
    {8, "throttle", "a 0 2 burst_ms 3600001", EINVAL, "throttle: Invalid burst_ms: '3600001'"},
    {8, "throttle", "nosuch 0", ENOENT,
     "throttle: Device lookup failed: 'nosuch': No such file or directory"},
    {8, "unstriped", "", EINVAL, "unstriped: Invalid number of arguments"},
    {8, "unstriped", "2 16 0 a", EINVAL, "unstriped: Invalid number of arguments"},
    {16, "unstriped", "2 16 0 a 0 more", EINVAL, "unstriped: Invalid number of arguments: 'more'"},
    {8, "unstriped", "2 16 2 a 0", EINVAL,
     "unstriped: Target length not divisible by chunk size: '16'"},
    {8, "unstriped", "2 16 0 a 0", EINVAL,
     "unstriped: Target length not divisible by chunk size: '16'"},
    {16, "unstriped", "0 16 0 a 0", EINVAL, "unstriped: Invalid stripe count: '0'"},
    {16, "unstriped", "2 0 0 a 0", EINVAL, "unstriped: Invalid chunk_size: '0'"},
    {16, "unstriped", "2 16 x a 0", EINVAL, "unstriped: Invalid stripe number: 'x'"},
    {16, "unstriped", "2 16 3 a 0", EINVAL,
     "unstriped: Please provide stripe between [0, # of stripes]: '3'"},
    {16, "unstriped", "2 16 0 a x", EINVAL, "unstriped: Invalid striped device offset: 'x'"},
    {16, "unstriped", "2 16 0 /dev/nosuch 0", ENOENT,
     "unstriped: Couldn't get striped device: '/dev/nosuch': No such file or directory"},
    // Would overflow, or wrap round to the device's start.
    {16, "unstriped", "2 16 0 a 18446744073709551615", EINVAL,
     "unstriped: Striped device would be too large: '18446744073709551615'"},
    {1ull << 53, "unstriped", "4294967295 1 0 a 0", EINVAL,
     "unstriped: Striped device would be too large: '0'"},
    {4294967295, "unstriped", "1 4294967295 4294967295 a 0", EINVAL,
     "unstriped: Striped device would be too large: '0'"},
};

TEST_F(TargetArgsTest, RefuseBadArgumentsAsTheKernel) {
  for (const Refusal& r : kRefusals) {
    SCOPED_TRACE(std::string(r.type) + ' ' + r.params);
    auto made = try_make({r.length}, r.type, r.params);
    if (made) {
      ADD_FAILURE() << "accepted";
      continue;
    }
    EXPECT_EQ(made.error().code, r.code);
    EXPECT_EQ(made.error().message, r.message);
  }
}

struct Accepted {
  uint64_t length;
  const char* type;
  const char* params;
  const char* printed;
  const char* status;
};

const Accepted kAccepted[] = {
    {8, "error", "extra", "", ""},
    {8, "error", "a 0 extra", "", ""},
    {8, "error", "a 2040", "", ""},
    {8, "dust", "a 0 4096", "a 0 4096", "a bypass verbose"},
    {2048, "dust", "a 5 00512", "a 5 512", "a bypass verbose"},
    {2097152, "dust", "a 0 1073741824", "a 0 1073741824", "a bypass verbose"},
    {9007199254740992, "zero", "", "", ""},
    {16, "delay", "a 0 300", "a 0 300", "0 0 0"},
    {16, "delay", "a 0 300 b 0 600", "a 0 300 b 0 600", "0 0 0"},
    {16, "delay", "a 0 300 b 0 600 c 5 900", "a 0 300 b 0 600 c 5 900", "0 0 0"},
    {8, "hang", "a 07", "a 7", "0 0"},
    {8, "linear", "a 2040", "a 2040", ""},
    // Too small for the target: the table's business, after create() has asked for the range.
    {8, "linear", "a 9999999999999999999", "a 9999999999999999999", ""},
    {8, "linear", "a 007", "a 7", ""},
    {2048, "striped", "2 16 a 0 b 0", "2 16 a 0 b 0", "2 a b 1 AA"},
    {2044, "striped", "2 7 a 0 b 0", "2 7 a 0 b 0", "2 a b 1 AA"},
    {2030, "striped", "2 7 a 0 b 0", "2 7 a 0 b 0", "2 a b 1 AA"},
    {2100, "striped", "2 6 a 0 b 0", "2 6 a 0 b 0", "2 a b 1 AA"},
    {60, "striped", "3 5 a 1 b 2 c 3", "3 5 a 1 b 2 c 3", "3 a b c 1 AAA"},
    {21, "striped", "1 7 a 3", "1 7 a 3", "1 a 1 A"},
    {8, "throttle", "a 0", "a 0 0", "0 0 0 0"},
    {8, "throttle", "a 0 2 read_iops 0", "a 0 0", "0 0 0 0"},
    {8, "throttle", "a 7 4 burst_ms 100 write_bps 5", "a 7 2 write_bps 5", "0 0 0 0"},
    {8, "throttle", "a 0 10 burst_ms 0 write_bps 4 read_bps 3 write_iops 2 read_iops 1",
     "a 0 10 read_iops 1 write_iops 2 read_bps 3 write_bps 4 burst_ms 0", "0 0 0 0"},
    {16, "unstriped", "2 16 0 a 0", "2 16 0 a 0", ""},
    {2048, "unstriped", "2 16 0 a 0", "2 16 0 a 0", ""},
    {1024, "unstriped", "2 16 1 a 0", "2 16 1 a 0", ""},
    {16, "unstriped", "2 16 2 a 0", "2 16 2 a 0", ""},
    {16, "unstriped", "1 16 5 a 0", "1 16 5 a 0", ""},
};

TEST_F(TargetArgsTest, AcceptAndPrintAsTheKernel) {
  for (const Accepted& a : kAccepted) {
    SCOPED_TRACE(std::string(a.type) + ' ' + a.params);
    auto target = make({a.length}, a.type, a.params);
    ASSERT_TRUE(target);
    EXPECT_EQ(target->table_line(), a.printed);
    EXPECT_EQ(target->status_line(), a.status);
  }
}

// The devices are 2048 sectors long.
class Opener final : public DeviceOpener {
 public:
  Result<std::unique_ptr<BackingFile>> open(const std::string& word, bool) override {
    return std::unique_ptr<BackingFile>(std::make_unique<MemoryFile>(word, Sectors{2048}));
  }
};

TEST_F(TargetArgsTest, AreRefusedOnADeviceThatIsTooSmall) {
  Opener opener;
  FakeClock clock;
  auto load = [&](uint64_t length, const char* type, const char* params) {
    auto table = Table::build({{{{0}, {length}, type, params}}}, {registry_, opener, clock});
    return table ? std::string("accepted") : table.error().message;
  };
  EXPECT_EQ(load(8, "linear", "/dev/ram0 2040"), "accepted");
  EXPECT_EQ(load(2048, "striped", "2 16 /dev/ram0 0 /dev/ram1 0"), "accepted");
  EXPECT_EQ(load(2048, "unstriped", "2 16 0 /dev/ram0 0"), "accepted");
  // Golden's words, with the file's name for the kernel's.
  const std::tuple<uint64_t, const char*, const char*, const char*> small[] = {
      {2049, "linear", "/dev/ram0 0", "start=0, len=2049, dev_size=2048"},
      {8, "linear", "/dev/ram0 2041", "start=2041, len=8, dev_size=2048"},
      {8, "linear", "/dev/ram0 9999999999999999999",
       "start=9999999999999999999, len=8, dev_size=2048"},
      {8, "linear", "/dev/ram0 18446744073709551615",
       "start=18446744073709551615, len=8, dev_size=2048"},
      {8192, "striped", "2 16 /dev/ram0 0 /dev/ram1 0", "start=0, len=4096, dev_size=2048"},
      {8, "dust", "/dev/ram0 2041 512", "start=2041, len=8, dev_size=2048"},
      {8, "error", "/dev/ram0 2041", "start=2041, len=8, dev_size=2048"},
  };
  for (const auto& [length, type, params, range] : small) {
    std::string message = load(length, type, params);
    EXPECT_NE(message.find(std::string(" too small for target: ") + range), std::string::npos)
        << message;
    EXPECT_NE(message.find("/dev/ram0"), std::string::npos) << message;
  }
}

TEST_F(TargetArgsTest, AreInTheManualWithLinesThatParse) {
  std::string root = __FILE__;
  root.resize(root.rfind("/tests/"));
  std::ifstream manual(root + "/man/dmfs-targets.7");
  ASSERT_TRUE(manual) << root;
  std::set<std::string> sections, shown;
  std::string line;
  bool display = false;
  while (std::getline(manual, line)) {
    if (line.starts_with(".Ss ")) sections.insert(line.substr(4));
    if (line.starts_with(".Bd") || line.starts_with(".Ed")) display = line.starts_with(".Bd");
    if (!display || line.empty() || line[0] < '0' || line[0] > '9') continue;
    // Of status, not of table.
    if (line.ends_with(" AD") || line.find(" F 1 ") != line.npos) continue;
    for (size_t at; (at = line.find("\\e")) != std::string::npos;) line.replace(at, 2, "\\");
    auto words = split_args(line);
    ASSERT_TRUE(words);
    ASSERT_GE(words->size(), 3u) << line;
    uint64_t start = 0, length = 0;
    ASSERT_TRUE(parse_u64((*words)[0], start) && parse_u64((*words)[1], length)) << line;
    const TargetType* type = registry_.find((*words)[2]);
    ASSERT_TRUE(type) << line;
    TestContext context({start}, {length});
    for (const std::string& word : *words) context.add_device(word, {1 << 20});
    auto made = type->create(context, std::span(*words).subspan(3));
    ASSERT_TRUE(made) << line << ": " << made.error().message;
    std::string printed = (*made)->table_line();
    printed.erase(printed.find_last_not_of(' ') + 1);  // flakey's ends in one
    EXPECT_TRUE(line.ends_with(printed)) << line;
    shown.emplace(type->name);
  }
  for (const auto& [name, type] : registry_.all()) {
    EXPECT_TRUE(sections.contains(name)) << name;
    EXPECT_TRUE(shown.contains(name)) << name;
  }
}

}  // namespace
}  // namespace dmfs::test
