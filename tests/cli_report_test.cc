// SPDX-License-Identifier: Apache-2.0
// What dmctl prints as columns and as a tree.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/columns.h"
#include "cli/tree.h"

namespace dmfs::cli {
namespace {

using testing::HasSubstr;

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

std::vector<ReportRow> report_rows() {
  Device lin = device("lin", 0), maj = device("maj", 201), empty = device("empty", 9);
  maj.uuid = maj.sent_uuid = "LVM-abc";
  empty.live_table = false;
  empty.target_count = 0;
  return {{.device = maj}, {.device = lin}, {.device = empty}};
}

TEST(Report, DefaultColumns) {
  EXPECT_EQ(render_report({}, report_rows()),
            "Name             Maj Min Stat Open Targ Event  UUID                            \n"
            "empty            253   9 ---w    0    0      0                                 \n"
            "lin              253   0 L--w    0    1      0                                 \n"
            "maj              253 201 L--w    0    1      0 LVM-abc                         \n");
}

TEST(Report, ColumnsGrow) {
  auto rows = report_rows();
  rows.resize(1);
  rows[0].device = device("m2", 1048575);
  EXPECT_EQ(
      render_report({}, rows),
      "Name             Maj Min     Stat Open Targ Event  UUID                            \n"
      "m2               253 1048575 L--w    0    1      0                                 \n");
}

TEST(Report, PlainForms) {
  ReportOptions plain{.fields = "name,uuid", .headings = false};
  EXPECT_EQ(render_report(plain, report_rows()), "empty:\nlin:\nmaj:LVM-abc\n");
  EXPECT_EQ(
      render_report({.fields = "name,minor", .sort = "-minor", .separator = "/"}, report_rows()),
      "Name/Min\nmaj/201\nempty/9\nlin/0\n");
  EXPECT_EQ(render_report({.fields = "name,uuid,minor", .rows = true}, report_rows()),
            "Name empty lin maj\nUUID   LVM-abc\nMin 9 0 201\n");
  plain.name_prefixes = true;
  EXPECT_THAT(render_report(plain, report_rows()), HasSubstr("DM_NAME='lin':DM_UUID=''\n"));
  plain.unquoted = true;
  EXPECT_THAT(render_report(plain, report_rows()), HasSubstr("DM_NAME=lin:DM_UUID=\n"));
}

TEST(Report, OtherColumns) {
  auto rows = report_rows();
  rows[1].device.inactive_table = rows[1].device.suspended = true;
  EXPECT_EQ(render_report({.fields = "name,attr,tables_loaded,suspended,readonly,devno"}, rows),
            "Name             Stat Tables Suspended Read-only DevNo  \n"
            "empty            ---w None   Active    Writeable 253:9  \n"
            "lin              LIsw Both   Suspended Writeable 253:0  \n"
            "maj              L--w Live   Active    Writeable 253:201\n");
  Device stacked = device("stacked", 10);
  std::vector<ReportRow> relations = {{.device = device("multi", 2),
                                       .deps = {{"", "/a", 0, 0}, {"x", "", 253, 7}},
                                       .users = {&stacked}}};
  ReportOptions deps{.fields =
                         "device_count,devs_used,devnos_used,blkdevs_used,names_using_dev,"
                         "device_ref_count,devnos_using_dev",
                     .headings = false};
  EXPECT_TRUE(report_needs_deps(deps));
  EXPECT_FALSE(report_needs_deps({}));
  EXPECT_EQ(render_report(deps, relations), "2:x:/a,253:7:/a,dm-7:stacked:1:253:10\n");
}

TEST(Report, RefusesUnknownFields) {
  auto bad = check_report({.fields = "name,nosuchfield"});
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().message, "Unrecognised field: nosuchfield");
  EXPECT_FALSE(check_report({.sort = "-bad"}));
  EXPECT_TRUE(check_report({.fields = "+read_ahead,deps_all", .sort = "+name,-minor"}));
}

TEST(Tree, ShowsWhatStandsOnWhat) {
  std::vector<DeviceDeps> devices = {
      {device("lin", 0), {{"", "/a", 0, 0}}},
      {device("multi", 2), {{"", "/a", 0, 0}, {"", "/b", 0, 0}}},
      {device("stacked", 10), {{"multi", "", 253, 2}}},
      {device("zero", 3), {}},
  };
  EXPECT_EQ(render_tree(devices, {}),
            "lin (253:0)\n"
            " `- (/a)\n"
            "stacked (253:10)\n"
            " `-multi (253:2)\n"
            "    |- (/a)\n"
            "    `- (/b)\n"
            "zero (253:3)\n");
  EXPECT_EQ(render_tree(devices, {.inverted = true}),
            " (/a)\n"
            " |-lin (253:0)\n"
            " `-multi (253:2)\n"
            "    `-stacked (253:10)\n"
            " (/b)\n"
            " `-multi (253:2)\n"
            "    `-stacked (253:10)\n"
            "zero (253:3)\n");
  EXPECT_EQ(render_tree(devices, {.device = false}), "lin\nstacked\n `-multi\nzero\n");
  EXPECT_EQ(render_tree(devices, {.compact = true}),
            "lin (253:0)--- (/a)\n"
            "stacked (253:10)---multi (253:2)-+- (/a)\n"
            "                                 `- (/b)\n"
            "zero (253:3)\n");
  EXPECT_THAT(render_tree(devices, {.active = true, .open = true, .rw = true, .uuid = true}),
              HasSubstr("zero (253:3) [ACTIVE, RW, 0, ]\n"));
}

}  // namespace
}  // namespace dmfs::cli
