// SPDX-License-Identifier: Apache-2.0
// The report of `info -c`: which fields there are, and rows of them as text. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/replies.h"
#include "core/base/result.h"

namespace dmfs::cli {

struct ReportOptions {
  std::string fields =
      {};  // -o: "name,uuid", "+uuid" for the default fields and more; empty: defaults
  std::string sort = {};                      // -O: "-minor,name"; empty: by name
  std::optional<std::string> separator = {};  // given: columns are not aligned
  bool headings = true;        // without them columns are not aligned, and the separator is ":"
  bool rows = false;           // one line a field
  bool name_prefixes = false;  // DM_NAME='...'
  bool unquoted = false;       // with name_prefixes
};

struct ReportRow {
  Device device;
  std::vector<Dependency> deps = {};
  std::vector<const Device*> users =
      {};  // devices whose live table uses this one; they outlive the row
};

// "Unrecognised field: X", as dmsetup.
Status check_report(const ReportOptions& options);

// Whether a field needs deps, or users.
bool report_needs_deps(const ReportOptions& options);

// check_report must have passed.
std::string render_report(const ReportOptions& options, const std::vector<ReportRow>& rows);

// The fields, for `help -c` and `-o help`.
std::string report_fields_text();

}  // namespace dmfs::cli
