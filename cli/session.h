// SPDX-License-Identifier: Apache-2.0
// What a command works with: the options, the daemon, and the two output streams.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/options.h"
#include "cli/replies.h"
#include "core/base/result.h"

namespace dmfs::cli {

// The daemon's limits, which are the kernel's.
inline constexpr size_t kMaxNameLength = 127;
inline constexpr size_t kMaxUuidLength = 128;

// One device as the user named it: by name, else by uuid, else by numbers. For `create` the new
// device's.
struct DeviceRef {
  std::string name = {};  // mangled
  std::string uuid = {};  // mangled
  std::optional<uint32_t> major = {};
  std::optional<uint32_t> minor = {};

  // "NAME UUID(253:1)", as in libdevmapper's messages: the space is always there.
  std::string label() const;
};

// One thread.
class Session {
 public:
  using Call =
      std::function<Result<nlohmann::json>(std::string_view method, const nlohmann::json& params)>;
  // Gives a Call, or says why there is no daemon. Called at the first request.
  using Connect = std::function<Result<Call>()>;

  Session(Options options, Connect connect)
      : options_(std::move(options)), connect_(std::move(connect)) {}

  const Options& options() const { return options_; }

  // Connects if that has not been done; false, with a word on stderr, when there is no daemon.
  bool connected();
  Result<nlohmann::json> call(std::string_view method,
                              const nlohmann::json& params = nlohmann::json::object());
  // With the device's selector in the params.
  Result<nlohmann::json> call_on(const DeviceRef& device, std::string_view method,
                                 nlohmann::json params = nlohmann::json::object());
  // As call_on; a failure is told as "device-mapper: IOCTL ioctl on LABEL failed: REASON", and what
  // a success has to say as "  NOTE".
  std::optional<nlohmann::json> run(std::string_view ioctl, const DeviceRef& device,
                                    std::string_view method,
                                    nlohmann::json params = nlohmann::json::object());

  // The same for what concerns no device.
  std::optional<nlohmann::json> run(std::string_view ioctl, std::string_view method,
                                    const nlohmann::json& params = nlohmann::json::object());

  // The device that the word, or -u or -j and -m, names: NAME, /dev/mapper/NAME, MOUNT/NAME,
  // /dev/dm-N. False, with a word on stderr, when it can be none.
  bool find(const std::string& word, DeviceRef& device);
  bool by_option() const { return options_.uuid || options_.minor; }
  bool find_by_option(DeviceRef& device);
  // Checks and mangles; `what` is "name" or "uuid". False, with a word on stderr, when it is
  // refused.
  bool mangle_word(std::string_view what, const std::string& word, std::string& mangled);

  void print(std::string_view text);
  void print_line(const nlohmann::json& reply);  // for --json
  void complain(std::string_view line);
  void ioctl_failed(std::string_view ioctl, const DeviceRef& device, const Error& error);
  // The reply's value; nullopt, with a word on stderr, when the reply is not what it should be.
  template <typename T>
  std::optional<T> expect(Result<T> result) {
    if (result) return *std::move(result);
    complain(result.error().message);
    return std::nullopt;
  }
  // -v: the device's info.
  bool print_info_if_verbose(const nlohmann::json& reply);

 private:
  bool find_by_path(const std::string& path, DeviceRef& device);

  const Options options_;
  const Connect connect_;
  Call call_;
};

}  // namespace dmfs::cli
