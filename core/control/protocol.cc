// SPDX-License-Identifier: Apache-2.0
#include "core/control/protocol.h"

#include <cstring>

namespace dmfs {

using nlohmann::json;

namespace {

// Looks at brackets and commas outside of strings only; whether it is JSON, the parser says.
Status check_limits(std::string_view text, const JsonLimits& limits) {
  size_t depth = 0;
  size_t values = 1;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
      continue;
    }
    switch (c) {
      case '"':
        in_string = true;
        break;
      case '[':
      case '{':
        ++values;
        if (++depth > limits.max_depth) {
          return Error{EINVAL, "JSON is nested deeper than " + std::to_string(limits.max_depth)};
        }
        break;
      case ']':
      case '}':
        if (depth > 0) --depth;
        break;
      case ',':
        ++values;
        break;
    }
    if (values > limits.max_values) {
      return Error{EINVAL, "JSON has more than " + std::to_string(limits.max_values) + " values"};
    }
  }
  return {};
}

bool is_id(const json& value) {
  return value.is_string() || value.is_number_integer();
}

const json* member(const json& object, const char* key) {
  auto it = object.find(key);
  return it == object.end() ? nullptr : &*it;
}

Error bad_reply(const std::string& why) {
  return {EPROTO, "the daemon's reply makes no sense: " + why};
}

}  // namespace

Result<json> parse_json(std::string_view text, const JsonLimits& limits) {
  DM_TRY_STATUS(check_limits(text, limits));
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) return Error{EINVAL, "not JSON in UTF-8"};
  return value;
}

std::string to_line(const json& message) {
  std::string line = message.dump(-1, ' ', false, json::error_handler_t::replace);
  line.push_back('\n');
  return line;
}

std::string errno_name(int code) {
  const char* name = strerrorname_np(code);
  return name != nullptr ? name : "errno " + std::to_string(code);
}

Result<std::string> encode_request(uint64_t id, std::string_view method, const json& params) {
  json message = {{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", params}};
  try {
    std::string line = message.dump();
    line.push_back('\n');
    return line;
  } catch (const json::exception&) {
    return Error{EILSEQ, std::string(method) + ": a word is not UTF-8"};
  }
}

Result<Request> decode_request(const json& message) {
  static const json kNoParams = json::object();
  if (!message.is_object()) return Error{EINVAL, "the request is not a JSON object"};
  const json* version = member(message, "jsonrpc");
  if (version == nullptr) return Error{EINVAL, "jsonrpc: missing"};
  if (*version != "2.0") return Error{EINVAL, "jsonrpc: not \"2.0\""};
  const json* id = member(message, "id");
  if (id == nullptr) return Error{EINVAL, "id: missing"};
  if (!is_id(*id)) return Error{EINVAL, "id: neither a string nor an integer"};
  const json* method = member(message, "method");
  if (method == nullptr) return Error{EINVAL, "method: missing"};
  if (!method->is_string()) return Error{EINVAL, "method: not a string"};
  const json* params = member(message, "params");
  if (params == nullptr) params = &kNoParams;
  if (!params->is_object()) return Error{EINVAL, "params: not an object"};
  return Request{*id, method->get_ref<const std::string&>(), *params};
}

json reply_id(const json& message) {
  if (!message.is_object()) return nullptr;
  const json* id = member(message, "id");
  return id != nullptr && is_id(*id) ? *id : json(nullptr);
}

json result_reply(const json& id, json result) {
  json reply = {{"jsonrpc", "2.0"}, {"id", id}};
  reply["result"] = std::move(result);
  return reply;
}

json error_reply(const json& id, RpcCode code, const Error& error) {
  int number = code == RpcCode::CommandFailed ? error.code : EINVAL;
  json data = {{"errno", number}, {"name", errno_name(number)}};
  json body = {{"code", static_cast<int>(code)}, {"message", error.message}, {"data", data}};
  return {{"jsonrpc", "2.0"}, {"id", id}, {"error", std::move(body)}};
}

Result<json> decode_reply(json message, uint64_t id) {
  if (!message.is_object()) return bad_reply("not a JSON object");
  const json* error = member(message, "error");
  const json* reply_to = member(message, "id");
  if (reply_to == nullptr) return bad_reply("no id");
  if (*reply_to != id && !(error != nullptr && reply_to->is_null())) {
    return bad_reply("another request's id");
  }
  if (error == nullptr) {
    auto result = message.find("result");
    if (result == message.end()) return bad_reply("neither a result nor an error");
    return std::move(*result);
  }
  if (!error->is_object()) return bad_reply("the error is not an object");
  const json* text = member(*error, "message");
  if (text == nullptr || !text->is_string()) return bad_reply("an error without a message");
  int code = EIO;
  if (const json* data = member(*error, "data"); data != nullptr && data->is_object()) {
    const json* number = member(*data, "errno");
    if (number != nullptr && number->is_number_integer()) {
      auto value = number->get<int64_t>();
      if (value > 0 && value < 4096) code = static_cast<int>(value);
    }
  }
  return Error{code, text->get<std::string>()};
}

}  // namespace dmfs
