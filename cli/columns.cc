// SPDX-License-Identifier: Apache-2.0
#include "cli/columns.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <span>

namespace dmfs::cli {
namespace {

// A number is right-aligned and sorts as one.
struct Value {
  std::string text;
  std::optional<uint64_t> number;
};

Value text(std::string s) {
  return {std::move(s), std::nullopt};
}
Value number(uint64_t n) {
  return {std::to_string(n), n};
}

enum class Group { Name, Info, Deps };

struct Field {
  std::string_view id;
  std::string_view heading;
  size_t width;
  Group group;
  std::string_view about;
  Value (*value)(const ReportRow& row);
};

std::string attributes(const Device& d) {
  return fmt::format("{}{}{}{}", d.live_table ? 'L' : '-', d.inactive_table ? 'I' : '-',
                     d.suspended ? 's' : '-', d.read_only ? 'r' : 'w');
}

std::string tables_loaded(const Device& d) {
  if (d.live_table) return d.inactive_table ? "Both" : "Live";
  return d.inactive_table ? "Inactive" : "None";
}

template <typename Range, typename Name>
Value joined(const Range& range, Name name) {
  std::string out;
  for (const auto& element : range) {
    std::string word = name(element);
    if (word.empty()) continue;
    if (!out.empty()) out += ',';
    out += word;
  }
  return text(std::move(out));
}

std::string devno(const Dependency& d) {
  return d.is_volume() ? fmt::format("{}:{}", d.major, d.minor) : d.path;
}

std::string block_name(const Dependency& d) {
  return d.is_volume() ? fmt::format("dm-{}", d.minor) : d.path;
}

using Row = ReportRow;
const Field kFields[] = {
    {"name", "Name", 16, Group::Name, "Name of the device.",
     [](const Row& r) { return text(r.device.name); }},
    {"mangled_name", "MangledName", 16, Group::Name, "Name with unsafe characters as \\xNN.",
     [](const Row& r) { return text(r.device.sent_name); }},
    {"unmangled_name", "UnmangledName", 16, Group::Name, "Name with every \\xNN decoded.",
     [](const Row& r) { return text(unmangle(r.device.sent_name, Mangling::Auto)); }},
    {"uuid", "UUID", 32, Group::Name, "Unique identifier, if it has one.",
     [](const Row& r) { return text(r.device.uuid); }},
    {"mangled_uuid", "MangledUUID", 32, Group::Name, "Identifier with unsafe characters as \\xNN.",
     [](const Row& r) { return text(r.device.sent_uuid); }},
    {"unmangled_uuid", "UnmangledUUID", 32, Group::Name, "Identifier with every \\xNN decoded.",
     [](const Row& r) { return text(unmangle(r.device.sent_uuid, Mangling::Auto)); }},
    {"read_ahead", "RAhead", 6, Group::Name, "Read-ahead in sectors.",
     [](const Row& r) { return number(r.device.read_ahead); }},

    {"blkdevname", "BlkDevName", 16, Group::Info, "dm-MINOR.",
     [](const Row& r) { return text(fmt::format("dm-{}", r.device.minor)); }},
    {"attr", "Stat", 4, Group::Info, "(L)ive, (I)nactive, (s)uspended, (r)ead-only or (w)ritable.",
     [](const Row& r) { return text(attributes(r.device)); }},
    {"tables_loaded", "Tables", 6, Group::Info, "Which table slots are filled.",
     [](const Row& r) { return text(tables_loaded(r.device)); }},
    {"suspended", "Suspended", 9, Group::Info, "Active or Suspended.",
     [](const Row& r) { return text(r.device.suspended ? "Suspended" : "Active"); }},
    {"readonly", "Read-only", 9, Group::Info, "Read-only or Writeable.",
     [](const Row& r) { return text(r.device.read_only ? "Read-only" : "Writeable"); }},
    {"devno", "DevNo", 7, Group::Info, "MAJOR:MINOR.",
     [](const Row& r) { return text(fmt::format("{}:{}", r.device.major, r.device.minor)); }},
    {"major", "Maj", 3, Group::Info, "Major number.",
     [](const Row& r) { return number(r.device.major); }},
    {"minor", "Min", 3, Group::Info, "Minor number.",
     [](const Row& r) { return number(r.device.minor); }},
    {"open", "Open", 4, Group::Info, "How often the device is open.",
     [](const Row& r) { return number(r.device.open_count); }},
    {"segments", "Targ", 4, Group::Info, "Number of targets of the live table.",
     [](const Row& r) { return number(r.device.target_count); }},
    {"events", "Event", 6, Group::Info, "Number of the last event.",
     [](const Row& r) { return number(r.device.event_nr); }},

    {"device_count", "#Devs", 5, Group::Deps, "Number of devices and files that this one uses.",
     [](const Row& r) { return number(r.deps.size()); }},
    {"devs_used", "DevNamesUsed", 16, Group::Deps, "Names of the devices that this one uses.",
     [](const Row& r) { return joined(r.deps, [](const auto& d) { return d.name; }); }},
    {"devnos_used", "DevNosUsed", 16, Group::Deps, "Numbers of the devices used; paths of files.",
     [](const Row& r) { return joined(r.deps, devno); }},
    {"blkdevs_used", "BlkDevNamesUsed", 16, Group::Deps, "dm-MINOR of the devices; paths of files.",
     [](const Row& r) { return joined(r.deps, block_name); }},
    {"device_ref_count", "#Refs", 5, Group::Deps, "Number of devices that use this one.",
     [](const Row& r) { return number(r.users.size()); }},
    {"names_using_dev", "RefNames", 5, Group::Deps, "Names of the devices that use this one.",
     [](const Row& r) { return joined(r.users, [](const Device* d) { return d->name; }); }},
    {"devnos_using_dev", "RefDevNos", 9, Group::Deps, "Numbers of the devices that use this one.",
     [](const Row& r) {
       return joined(r.users,
                     [](const Device* d) { return fmt::format("{}:{}", d->major, d->minor); });
     }},
};

constexpr std::string_view kDefaultFields = "name,major,minor,attr,open,segments,events,uuid";

std::vector<std::string_view> split(std::string_view list) {
  std::vector<std::string_view> words;
  while (!list.empty()) {
    size_t end = std::min(list.find(','), list.size());
    if (end > 0) words.push_back(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return words;
}

const Field* find_field(std::string_view id) {
  auto it = std::find_if(std::begin(kFields), std::end(kFields),
                         [&](const Field& f) { return f.id == id; });
  return it == std::end(kFields) ? nullptr : it;
}

Error unknown_field(std::string_view word) {
  return Error{EINVAL, fmt::format("Unrecognised field: {}", word)};
}

// Adds a field, or a whole group ("info_all", "all"); false when there is none of that name.
bool add_fields(std::string_view word, std::vector<const Field*>& out) {
  if (const Field* field = find_field(word)) {
    out.push_back(field);
    return true;
  }
  std::optional<Group> group;
  if (word == "name_all") group = Group::Name;
  if (word == "info_all") group = Group::Info;
  if (word == "deps_all") group = Group::Deps;
  if (!group && word != "all") return false;
  for (const Field& field : kFields) {
    if (!group || field.group == *group) out.push_back(&field);
  }
  return true;
}

Result<std::vector<const Field*>> selected_fields(const ReportOptions& options) {
  std::vector<const Field*> fields;
  std::string_view list = options.fields;
  if (list.empty() || list.front() == '+') {
    for (auto word : split(kDefaultFields)) add_fields(word, fields);
    if (!list.empty()) list.remove_prefix(1);
  }
  for (auto word : split(list)) {
    if (!add_fields(word, fields)) return unknown_field(word);
  }
  return fields;
}

struct SortKey {
  const Field* field;
  bool descending;
};

Result<std::vector<SortKey>> sort_keys(const ReportOptions& options) {
  std::vector<SortKey> keys;
  std::string_view list = options.sort.empty() ? "name" : std::string_view(options.sort);
  for (auto word : split(list)) {
    bool descending = word.front() == '-';
    std::string_view id = word;
    if (id.front() == '-' || id.front() == '+') id.remove_prefix(1);
    const Field* field = find_field(id);
    if (!field) return unknown_field(word);
    keys.push_back({field, descending});
  }
  return keys;
}

int compare(const Value& a, const Value& b) {
  if (a.number && b.number) return *a.number < *b.number ? -1 : *a.number > *b.number ? 1 : 0;
  return a.text.compare(b.text);
}

std::vector<const ReportRow*> sorted(const std::vector<SortKey>& keys,
                                     const std::vector<ReportRow>& rows) {
  std::vector<const ReportRow*> order;
  for (const ReportRow& row : rows) order.push_back(&row);
  std::stable_sort(order.begin(), order.end(), [&](const ReportRow* a, const ReportRow* b) {
    for (const SortKey& key : keys) {
      int order_of = compare(key.field->value(*a), key.field->value(*b));
      if (order_of != 0) return key.descending ? order_of > 0 : order_of < 0;
    }
    return false;
  });
  return order;
}

std::string prefixed(const Field& field, const std::string& value, bool unquoted) {
  std::string id(field.id);
  for (char& c : id) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return unquoted ? fmt::format("DM_{}={}", id, value) : fmt::format("DM_{}='{}'", id, value);
}

struct Cell {
  std::string text;
  bool right = false;
};
using Line = std::vector<Cell>;

std::string join_lines(const std::vector<Line>& lines, std::string_view separator,
                       std::span<const size_t> widths) {
  std::string out;
  for (const Line& line : lines) {
    for (size_t i = 0; i < line.size(); i++) {
      if (i > 0) out += separator;
      size_t width = i < widths.size() ? widths[i] : 0;
      out += line[i].right ? fmt::format("{:>{}}", line[i].text, width)
                           : fmt::format("{:<{}}", line[i].text, width);
    }
    out += '\n';
  }
  return out;
}

std::vector<Line> transposed(const std::vector<Line>& lines) {
  std::vector<Line> out(lines.empty() ? 0 : lines.front().size());
  for (const Line& line : lines) {
    for (size_t i = 0; i < line.size(); i++) out[i].push_back(line[i]);
  }
  return out;
}

}  // namespace

Status check_report(const ReportOptions& options) {
  DM_TRY_STATUS(selected_fields(options));
  DM_TRY_STATUS(sort_keys(options));
  return {};
}

bool report_needs_deps(const ReportOptions& options) {
  auto fields = selected_fields(options);
  auto keys = sort_keys(options);
  auto needs = [](const Field* field) { return field->group == Group::Deps; };
  return (fields && std::any_of(fields->begin(), fields->end(), needs)) ||
         (keys && std::any_of(keys->begin(), keys->end(),
                              [&](const SortKey& key) { return needs(key.field); }));
}

std::string render_report(const ReportOptions& options, const std::vector<ReportRow>& rows) {
  auto fields = selected_fields(options);
  auto keys = sort_keys(options);
  if (!fields || !keys) return {};
  std::vector<Line> lines;
  if (options.headings) {
    Line line;
    for (const Field* field : *fields) line.push_back({std::string(field->heading)});
    lines.push_back(std::move(line));
  }
  for (const ReportRow* row : sorted(*keys, rows)) {
    Line line;
    for (const Field* field : *fields) {
      Value value = field->value(*row);
      line.push_back(
          {options.name_prefixes ? prefixed(*field, value.text, options.unquoted) : value.text,
           value.number.has_value()});
    }
    lines.push_back(std::move(line));
  }
  std::string separator = options.separator.value_or(options.headings ? " " : ":");
  if (options.rows) return join_lines(transposed(lines), separator, {});
  if (options.separator || !options.headings) return join_lines(lines, separator, {});
  std::vector<size_t> widths;
  for (size_t i = 0; i < fields->size(); i++) {
    size_t width = (*fields)[i]->width;
    for (const Line& line : lines) width = std::max(width, line[i].text.size());
    widths.push_back(width);
  }
  return join_lines(lines, separator, widths);
}

std::string report_fields_text() {
  struct Section {
    Group group;
    std::string_view title, all;
  };
  constexpr Section kSections[] = {{Group::Name, "Names", "name_all"},
                                   {Group::Info, "State", "info_all"},
                                   {Group::Deps, "Relations", "deps_all"}};
  std::string out;
  for (const Section& section : kSections) {
    out += fmt::format("{}\n{:-<{}}\n", section.title, "", section.title.size());
    out += fmt::format("  {:<18}- {}\n", section.all, "All fields in this section.");
    for (const Field& field : kFields) {
      if (field.group == section.group) out += fmt::format("  {:<18}- {}\n", field.id, field.about);
    }
    out += '\n';
  }
  return out;
}

}  // namespace dmfs::cli
