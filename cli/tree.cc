// SPDX-License-Identifier: Apache-2.0
#include "cli/tree.h"

#include <fmt/format.h>

#include <map>
#include <string_view>

namespace dmfs::cli {
namespace {

struct Node {
  const Device* device = nullptr;  // null: a file
  std::string path = {};
  std::vector<size_t> below = {}, above = {};
};

// The graph of devices and files, in the order in which a walk of the devices meets them.
class Graph {
 public:
  explicit Graph(const std::vector<DeviceDeps>& devices) {
    std::map<uint32_t, const Device*> by_minor;
    for (const DeviceDeps& d : devices) by_minor.emplace(d.info.minor, &d.info);
    for (const DeviceDeps& d : devices) {
      size_t node = add_device(&d.info);
      for (const Dependency& dep : d.deps) {
        auto it = dep.is_volume() ? by_minor.find(dep.minor) : by_minor.end();
        if (dep.is_volume() && it == by_minor.end()) continue;  // removed meanwhile
        size_t lower = dep.is_volume() ? add_device(it->second) : add_file(dep.path);
        nodes_[node].below.push_back(lower);
        nodes_[lower].above.push_back(node);
      }
    }
  }
  const std::vector<Node>& nodes() const { return nodes_; }

 private:
  size_t add_device(const Device* device) {
    auto [it, added] = devices_.emplace(device, nodes_.size());
    if (added) nodes_.push_back({.device = device});
    return it->second;
  }
  size_t add_file(const std::string& path) {
    auto [it, added] = files_.emplace(path, nodes_.size());
    if (added) nodes_.push_back({.path = path});
    return it->second;
  }

  std::vector<Node> nodes_;
  std::map<const Device*, size_t> devices_;
  std::map<std::string, size_t> files_;
};

struct Marks {
  std::string_view tee, corner, bar, first_of_many, only;
};
constexpr Marks kAscii{"|-", "`-", "| ", "-+-", "---"};
constexpr Marks kUtf{"├─", "└─", "│ ", "─┬─", "───"};

class Printer {
 public:
  Printer(const Graph& graph, const TreeOptions& options)
      : nodes_(graph.nodes()), options_(options), marks_(options.utf ? kUtf : kAscii) {}

  std::string print() {
    for (size_t i = 0; i < nodes_.size(); i++) {
      if (!is_root(nodes_[i]) || hidden(nodes_[i])) continue;
      print_node(i, "", 0);
      if (options_.compact) out_ += '\n';
    }
    return std::move(out_);
  }

 private:
  bool is_root(const Node& node) const {
    return (options_.inverted ? node.below : node.above).empty();
  }
  // A file has nothing but what stands where a device has its number.
  bool hidden(const Node& node) const { return !node.device && !options_.device; }

  std::vector<size_t> children(const Node& node) const {
    std::vector<size_t> shown;
    for (size_t child : options_.inverted ? node.above : node.below) {
      if (!hidden(nodes_[child])) shown.push_back(child);
    }
    return shown;
  }

  std::string label(const Node& node) const {
    if (!node.device) return fmt::format(" ({})", node.path);
    const Device& d = *node.device;
    std::string out = d.name;
    if (options_.block_name && d.has_disk()) out += fmt::format(" <dm-{}>", d.minor);
    if (options_.device) out += fmt::format(" ({}:{})", d.major, d.minor);
    std::vector<std::string> state;
    if (options_.active) state.push_back(d.suspended ? "SUSPENDED" : "ACTIVE");
    if (options_.rw) state.push_back(d.read_only ? "RO" : "RW");
    if (options_.open) state.push_back(std::to_string(d.open_count));
    if (options_.uuid) state.push_back(d.uuid);
    if (!state.empty()) out += fmt::format(" [{}]", fmt::join(state, ", "));
    return out;
  }

  // `indent` is what stands to the left of the children's marks, `column` its width.
  void print_node(size_t index, const std::string& indent, size_t column) {
    const Node& node = nodes_[index];
    std::string text = label(node);
    out_ += text;
    std::vector<size_t> shown = children(node);
    if (options_.compact) return print_compact(shown, indent, column + text.size());
    out_ += '\n';
    for (size_t i = 0; i < shown.size(); i++) {
      bool last = i + 1 == shown.size();
      out_ += fmt::format("{} {}", indent, last ? marks_.corner : marks_.tee);
      print_node(shown[i], fmt::format("{} {}", indent, last ? "  " : marks_.bar), 0);
    }
  }

  // `column` is where the parent's text ended; the children's marks stand one to the right of it.
  void print_compact(const std::vector<size_t>& shown, const std::string& indent, size_t column) {
    if (shown.empty()) return;
    std::string left = indent + std::string(column - width(indent), ' ');
    for (size_t i = 0; i < shown.size(); i++) {
      bool last = i + 1 == shown.size();
      if (i == 0) {
        out_ += shown.size() > 1 ? marks_.first_of_many : marks_.only;
      } else {
        out_ += fmt::format("\n{} {}", left, last ? marks_.corner : marks_.tee);
      }
      print_node(shown[i], fmt::format("{} {}", left, last ? "  " : marks_.bar), column + 3);
    }
  }

  // Columns on the screen: the bytes that do not continue a UTF-8 character.
  static size_t width(std::string_view text) {
    size_t n = 0;
    for (char c : text) n += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    return n;
  }

  const std::vector<Node>& nodes_;
  const TreeOptions& options_;
  const Marks& marks_;
  std::string out_;
};

}  // namespace

std::string render_tree(const std::vector<DeviceDeps>& devices, const TreeOptions& options) {
  Graph graph(devices);
  return Printer(graph, options).print();
}

}  // namespace dmfs::cli
