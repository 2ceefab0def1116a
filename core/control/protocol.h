// SPDX-License-Identifier: Apache-2.0
// The control protocol's messages: JSON-RPC 2.0, one object per line. Pure functions, shared by
// client and server; any thread. nlohmann/json is wrapped here: nothing in this file throws on bad
// input, whatever the bytes.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace dmfs {

inline constexpr std::string_view kVersion = "0.1.0";
inline constexpr std::string_view kDriverVersion = "4.47.0";  // of the kernel's dm we follow
inline constexpr int kProtocolVersion = 1;

// A request line is at most this long; a table of 100,000+ targets fits. Replies are not bounded.
inline constexpr size_t kMaxMessage = size_t{64} << 20;
inline constexpr size_t kMaxDepth = 64;
// Bounds what a parsed request takes in memory: "[],[],[]..." grows 27 times when parsed.
inline constexpr size_t kMaxValues = size_t{1} << 22;

enum class RpcCode : int {
  Parse = -32700,
  InvalidRequest = -32600,
  NoSuchMethod = -32601,
  BadParams = -32602,
  CommandFailed = -32000,
};

struct JsonLimits {
  size_t max_depth = kMaxDepth;
  size_t max_values = kMaxValues;
};

// Any bytes; EINVAL when they are not one JSON value in UTF-8 within the limits.
Result<nlohmann::json> parse_json(std::string_view text, const JsonLimits& limits = {});

// One line with its newline. Bytes that are not UTF-8 become U+FFFD: an error message may quote
// anything.
std::string to_line(const nlohmann::json& message);

// "EINVAL"; "errno 4711" for a number that has no name.
std::string errno_name(int code);

// A request line. EILSEQ when a string in it is not UTF-8: sending a changed name or path would be
// worse than not sending it.
Result<std::string> encode_request(uint64_t id, std::string_view method,
                                   const nlohmann::json& params);

// Parts of a message that must outlive it.
struct Request {
  const nlohmann::json& id;
  const std::string& method;
  const nlohmann::json& params;  // an object; empty when the message has none
};

// Refuses what is no JSON-RPC 2.0 request with an id; batches and notifications too.
Result<Request> decode_request(const nlohmann::json& message);

// The id to answer with: the message's when it has a usable one, else null.
nlohmann::json reply_id(const nlohmann::json& message);

nlohmann::json result_reply(const nlohmann::json& id, nlohmann::json result);
// Codes other than CommandFailed always carry EINVAL.
nlohmann::json error_reply(const nlohmann::json& id, RpcCode code, const Error& error);

// The result, or the Error the daemon sent; EPROTO when it is no reply to request `id`. An error
// without an id is a reply to anything: the daemon refused the connection or the line.
Result<nlohmann::json> decode_reply(nlohmann::json message, uint64_t id);

}  // namespace dmfs
