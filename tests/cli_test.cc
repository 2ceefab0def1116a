// SPDX-License-Identifier: Apache-2.0
// The pure parts of dmctl: table text, concise form, names, output, default paths, the manual.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "cli/commands.h"
#include "cli/concise.h"
#include "cli/mangle.h"
#include "cli/output.h"
#include "core/base/paths.h"
#include "cli/table_text.h"
#include "cli/usage.h"

namespace dmfs::cli {
namespace {

using testing::HasSubstr;

std::vector<TableLine> table(const std::string& text) {
  std::istringstream stream(text);
  auto lines = parse_table(stream, "on stdin");
  EXPECT_TRUE(lines) << text;
  return lines ? *lines : std::vector<TableLine>();
}

std::string table_error(const std::string& text) {
  std::istringstream stream(text);
  auto lines = parse_table(stream, "on stdin");
  EXPECT_FALSE(lines) << text;
  return lines ? "" : lines.error().message;
}

Device device(std::string name, uint32_t minor) {
  Device d;
  d.name = d.sent_name = std::move(name);
  d.major = 253;
  d.minor = minor;
  d.live_table = true;
  d.target_count = 1;
  d.read_ahead = 256;
  return d;
}

TEST(TableText, ReadsLinesAsDmsetupDoes) {
  EXPECT_EQ(table("0 8 zero\n\n# comment\n  8 8\terror \n"),
            (std::vector<TableLine>{{0, 8, "zero", ""}, {8, 8, "error", ""}}));
  EXPECT_EQ(table("0 512 linear /dev/ram1 0"),
            (std::vector<TableLine>{{0, 512, "linear", "/dev/ram1 0"}}));
  EXPECT_EQ(table("0 8 zero, 8 8 error").at(0), (TableLine{0, 8, "zero,", "8 8 error"}));
  EXPECT_EQ(table(""), std::vector<TableLine>());
  EXPECT_EQ(table("# only a comment\n"), std::vector<TableLine>());
}

TEST(TableText, ReadsNumbersAsScanfDoes) {
  EXPECT_EQ(table("-1 8 zero").at(0).start, UINT64_MAX);
  EXPECT_EQ(table("0 -8 zero").at(0).length, UINT64_MAX - 7);
  EXPECT_EQ(table("+3 8 zero").at(0).start, 3u);
  EXPECT_EQ(table("0 0x10 zero").at(0), (TableLine{0, 0, "x10", "zero"}));
  EXPECT_EQ(table("0 8k zero").at(0), (TableLine{0, 8, "k", "zero"}));
  EXPECT_EQ(table("0 18446744073709551615 zero").at(0).length, UINT64_MAX);
  EXPECT_EQ(table("0 99999999999999999999 zero").at(0).length, UINT64_MAX);
  EXPECT_EQ(table("-99999999999999999999 1 zero").at(0).start, UINT64_MAX);
}

TEST(TableText, RefusesWithDmsetupsWords) {
  const char* const kInvalid = "Invalid format on line 1 of table on stdin.";
  EXPECT_EQ(table_error("zero 0 8\n"), kInvalid);
  EXPECT_EQ(table_error("0 8\n"), kInvalid);
  EXPECT_EQ(table_error("0\n"), kInvalid);
  EXPECT_EQ(table_error("- 8 zero\n"), kInvalid);
  EXPECT_EQ(table_error("0 8 zero\n\nx\n"), "Invalid format on line 3 of table on stdin.");
  EXPECT_EQ(table_error("0 8 sixteencharname1"), "Target type name sixteencharname1 is too long.");
  EXPECT_EQ(table("0 8 fifteencharname").at(0).type, "fifteencharname");
}

TEST(TableText, CutsCommentsOnlyAtWords) {
  EXPECT_EQ(table("0 8 linear a#b 0 # why").at(0).params, "a#b 0 ");
  EXPECT_EQ(table("0 8 linear \\#a 0").at(0).params, "\\#a 0");
}

TEST(TableText, FileErrorsNameTheFile) {
  auto lines = read_table("/nonexistent/table");
  ASSERT_FALSE(lines);
  EXPECT_EQ(lines.error().message,
            "Couldn't open '/nonexistent/table' for reading: No such file or directory");
  auto folder = read_table("/");
  EXPECT_FALSE(folder);
}

TEST(Concise, ReadsDevices) {
  auto devices =
      parse_concise("c1,,,rw,0 8 zero;c2,C2-UUID,,ro,0 8 error,8 8 zero;c3,,222,,0 1 zero;");
  ASSERT_TRUE(devices);
  ASSERT_EQ(devices->size(), 3u);
  EXPECT_EQ((*devices)[0].name, "c1");
  EXPECT_FALSE((*devices)[0].read_only);
  EXPECT_EQ((*devices)[1].uuid, "C2-UUID");
  EXPECT_TRUE((*devices)[1].read_only);
  EXPECT_EQ((*devices)[1].table, (std::vector<TableLine>{{0, 8, "error", ""}, {8, 8, "zero", ""}}));
  EXPECT_EQ((*devices)[2].minor, 222u);
}

TEST(Concise, RefusesWithDmsetupsWords) {
  auto flags = parse_concise("bad1,,,xx,0 8 zero");
  ASSERT_FALSE(flags);
  EXPECT_EQ(flags.error().message, "Invalid flags parameter 'xx' must be 'ro' or 'rw' or empty.");
  auto fields = parse_concise("bad1,,");
  ASSERT_FALSE(fields);
  EXPECT_EQ(fields.error().message,
            "Incomplete entry: five comma-separated fields are required for each device\n"
            "Parsed 3 fields: name: bad1 uuid:  minor:  flags: (null) table: (null)");
  auto minor = parse_concise("bad1,,x,,0 8 zero");
  ASSERT_FALSE(minor);
  EXPECT_THAT(minor.error().message, HasSubstr("'x'"));
}

TEST(Concise, ReadsWhatItPrints) {
  DeviceTable multi{device("mul,ti;", 2), {{0, 8, "linear", "/a,b\\ c;d 0"}, {8, 8, "error", ""}}};
  std::string text = format_concise(multi);
  EXPECT_EQ(text, R"(mul\,ti\;,,2,rw,0 8 linear /a\,b\\ c\;d 0,8 8 error )");
  auto devices = parse_concise(text);
  ASSERT_TRUE(devices);
  EXPECT_EQ((*devices)[0].name, "mul,ti;");
  EXPECT_EQ((*devices)[0].table, multi.targets);
}

TEST(Mangling, SendsUnsafeCharactersAsHex) {
  EXPECT_EQ(*mangle("a b", Mangling::Auto), "a\\x20b");
  EXPECT_EQ(*mangle("a:b*c", Mangling::Auto), "a:b\\x2ac");
  EXPECT_EQ(*mangle("Az09#+-.:=@_", Mangling::Auto), "Az09#+-.:=@_");
  EXPECT_EQ(*mangle("x$y", Mangling::None), "x$y");
  EXPECT_EQ(*mangle("\xc3\xa4", Mangling::Auto), "\\xc3\\xa4");
  EXPECT_EQ(*mangle(std::string("a\0b", 3), Mangling::Auto), "a\\x00b");
  EXPECT_EQ(*mangle("", Mangling::Auto), "");
}

TEST(Mangling, AutoKeepsWhatIsMangled) {
  EXPECT_EQ(*mangle("a\\x20b", Mangling::Auto), "a\\x20b");
  EXPECT_EQ(*mangle("a\\x20b", Mangling::Hex), "a\\x5cx20b");
  EXPECT_EQ(*mangle("a\\x2", Mangling::Auto), "a\\x5cx2");
  EXPECT_FALSE(mangle("a\\x20b c", Mangling::Auto));
}

TEST(Mangling, ComesBack) {
  for (std::string name : {"plain", "a b", "\xff\n/", "\\x20", "a\\"}) {
    EXPECT_EQ(unmangle(*mangle(name, Mangling::Hex), Mangling::Hex), name);
  }
  EXPECT_EQ(unmangle("a\\x2ab", Mangling::None), "a\\x2ab");
  EXPECT_EQ(unmangle("a\\xzz\\x2", Mangling::Auto), "a\\xzz\\x2");
}

TEST(Output, InfoIsDmsetups) {
  Device multi = device("multi2", 3);
  multi.uuid = "MULTI-2-uuid";
  multi.target_count = 2;
  EXPECT_EQ(info_text(multi),
            "Name:              multi2\n"
            "State:             ACTIVE\n"
            "Read Ahead:        256\n"
            "Tables present:    LIVE\n"
            "Open count:        0\n"
            "Event number:      0\n"
            "Major, minor:      253, 3\n"
            "Number of targets: 2\n"
            "UUID: MULTI-2-uuid\n"
            "\n");
  Device empty = device("empty", 9);
  empty.live_table = false;
  empty.target_count = 0;
  EXPECT_EQ(info_text(empty),
            "Name:              empty\n"
            "State:             ACTIVE\n"
            "Tables present:    None\n"
            "Open count:        0\n"
            "Event number:      0\n"
            "Major, minor:      253, 9\n"
            "Number of targets: 0\n"
            "\n");
}

TEST(Output, InfoTellsTheState) {
  Device d = device("d", 0);
  d.inactive_table = d.suspended = d.read_only = d.deferred_remove = true;
  d.not_activated = "linear: /a: No such file or directory";
  d.fault = "/b: has shrunk";
  EXPECT_THAT(info_text(d),
              HasSubstr("State:             SUSPENDED (READ-ONLY) (DEFERRED REMOVE)\n"
                        "Not activated:     linear: /a: No such file or directory\n"
                        "Fault:             /b: has shrunk\n"));
  EXPECT_THAT(info_text(d), HasSubstr("Tables present:    LIVE & INACTIVE\n"));
  d.live_table = false;
  EXPECT_THAT(info_text(d), HasSubstr("Tables present:    INACTIVE\n"));
}

TEST(Output, TargetsAndDependencies) {
  DeviceTable multi{device("multi", 2), {{0, 8, "linear", "/a 0"}, {8, 8, "zero", ""}}};
  EXPECT_EQ(targets_text(multi, "", ""), "0 8 linear /a 0\n8 8 zero \n");
  EXPECT_EQ(targets_text(multi, "multi: ", "zero"), "multi: 8 8 zero \n");
  EXPECT_EQ(targets_text(multi, "", "nosuch"), "");
  DeviceTable empty{device("empty", 1), {}};
  EXPECT_EQ(targets_text(empty, "", ""), "\n");
  EXPECT_EQ(targets_text(empty, "empty: ", ""), "empty: \n");
  EXPECT_EQ(targets_text(empty, "empty: ", "zero"), "");

  DeviceDeps deps{device("multi", 2), {{"", "/a/b", 0, 0}, {"lin", "", 253, 4}}};
  EXPECT_EQ(deps_text(deps, "", NameForm::DevNo), "2 dependencies\t: (/a/b) (253, 4)\n");
  EXPECT_EQ(deps_text(deps, "multi: ", NameForm::DevName),
            "multi: 2 dependencies\t: (/a/b) (lin)\n");
  EXPECT_EQ(deps_text(deps, "", NameForm::BlkDevName), "2 dependencies\t: (/a/b) (dm-4)\n");
  EXPECT_EQ(deps_text({device("x", 0), {}}, "", NameForm::DevNo), "0 dependencies\t:\n");
}

TEST(Output, ListLines) {
  Device lin = device("lin", 0);
  EXPECT_EQ(ls_line(lin, NameForm::DevNo), "lin\t(253:0)\n");
  EXPECT_EQ(ls_line(lin, NameForm::DevName), "lin\t(lin)\n");
  EXPECT_EQ(ls_line(lin, NameForm::BlkDevName), "lin\t(dm-0)\n");
  EXPECT_EQ(ls_target_line(lin), "lin\t(253, 0)\n");
  lin.live_table = false;
  EXPECT_EQ(ls_line(lin, NameForm::DevName), "lin\t(253:0)\n");
  EXPECT_EQ(target_version_line({"snapshot-merge", {1, 5, 0}}), "snapshot-merge   v1.5.0\n");
}

Environment user(std::map<std::string, std::string> variables, std::set<std::string> folders = {}) {
  return {.uid = 1000,
          .variable = [=](const char* name) -> std::optional<std::string> {
            auto it = variables.find(name);
            return it == variables.end() ? std::nullopt : std::optional(it->second);
          },
          .is_folder = [=](const std::string& path) { return folders.contains(path); }};
}

TEST(Paths, Defaults) {
  Environment root = user({{"XDG_RUNTIME_DIR", "/run/user/0"}});
  root.uid = 0;
  EXPECT_EQ(default_paths(root).store, "/var/lib/dmfs/dmfs.db");
  EXPECT_EQ(default_paths(root).mount, "/run/dmfs/mapper");
  EXPECT_EQ(default_paths(root).socket, "/run/dmfs/control.sock");

  auto xdg = default_paths(user({{"XDG_RUNTIME_DIR", "/r/"}, {"XDG_STATE_HOME", "/s"}}));
  EXPECT_EQ(xdg.store, "/s/dmfs/dmfs.db");
  EXPECT_EQ(xdg.mount, "/r/dmfs/mapper");
  EXPECT_EQ(xdg.socket, "/r/dmfs/control.sock");
  EXPECT_EQ(xdg.shared_folder, "");

  auto home =
      default_paths(user({{"HOME", "/h"}, {"XDG_RUNTIME_DIR", "relative"}}, {"/run/user/1000"}));
  EXPECT_EQ(home.store, "/h/.local/state/dmfs/dmfs.db");
  EXPECT_EQ(home.mount, "/run/user/1000/dmfs/mapper");

  auto tmp = default_paths(user({{"HOME", "/h"}, {"DMFS_SOCKET", "/my.sock"}}));
  EXPECT_EQ(tmp.mount, "/tmp/dmfs-1000/mapper");
  EXPECT_EQ(tmp.shared_folder, "/tmp/dmfs-1000");
  EXPECT_EQ(tmp.socket, "/my.sock");

  // Without a home there is no store, but a socket to talk to all the same.
  Paths homeless = default_paths(user({{"DMFS_SOCKET", "/my.sock"}}));
  EXPECT_EQ(homeless.store, "");
  EXPECT_EQ(homeless.socket, "/my.sock");
}

TEST(Paths, OnlyAPrivateFolderIsTrusted) {
  std::string base = testing::TempDir() + "/dmctl-paths-" + std::to_string(getpid());
  ASSERT_TRUE(make_folders(base + "/a/b"));
  struct stat st;
  ASSERT_EQ(stat((base + "/a/b").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0700u);
  EXPECT_TRUE(make_folders(base + "/a/b"));
  EXPECT_TRUE(check_private_folder(base + "/a"));
  EXPECT_TRUE(check_private_folder(base + "/not-there"));
  ASSERT_EQ(chmod((base + "/a").c_str(), 0777), 0);
  EXPECT_FALSE(check_private_folder(base + "/a"));
  ASSERT_EQ(symlink("a", (base + "/link").c_str()), 0);
  EXPECT_FALSE(check_private_folder(base + "/link"));
  std::ofstream(base + "/file") << "x";
  EXPECT_FALSE(make_folders(base + "/file/c"));
  std::filesystem::remove_all(base);
}

// The manual has every command and option that the usage has, and the usage every command there is.
TEST(Manual, HasEverything) {
  std::ifstream file(std::filesystem::path(__FILE__).parent_path() / "../man/dmctl.8");
  std::string manual((std::istreambuf_iterator<char>(file)), {});
  ASSERT_FALSE(manual.empty());
  std::string usage = usage_text("dmctl");
  for (const Command& command : all_commands()) {
    EXPECT_THAT(manual, HasSubstr("\n.It Cm " + std::string(command.name)));
    EXPECT_TRUE(
        std::regex_search(usage, std::regex("[\t|]" + std::string(command.name) + "[ |\n]")))
        << command.name;
  }
  std::regex option("--?[a-zA-Z_]+");
  for (std::sregex_iterator it(usage.begin(), usage.end(), option), end; it != end; ++it) {
    if (it->position() > 0 && std::isalnum(usage[static_cast<size_t>(it->position()) - 1]))
      continue;
    std::string word = it->str().substr(1);
    EXPECT_TRUE(std::regex_search(manual, std::regex("Fl " + word + "[ \n]"))) << word;
  }
}

}  // namespace
}  // namespace dmfs::cli
