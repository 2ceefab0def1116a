// SPDX-License-Identifier: Apache-2.0
// The control protocol's messages and framing. The server has server_test, the commands behind it
// dispatcher_test.
#include <gtest/gtest.h>

#include <array>
#include <random>

#include "core/control/line_reader.h"
#include "core/control/protocol.h"

namespace dmfs {
namespace {

using nlohmann::json;

TEST(Protocol, ErrnoNames) {
  EXPECT_EQ(errno_name(EINVAL), "EINVAL");
  EXPECT_EQ(errno_name(ENXIO), "ENXIO");
  EXPECT_EQ(errno_name(4711), "errno 4711");
}

TEST(Protocol, NestingIsBounded) {
  auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(parse_json(nested(kMaxDepth)));
  auto deep = parse_json(nested(kMaxDepth + 1));
  ASSERT_FALSE(deep);
  EXPECT_EQ(deep.error().code, EINVAL);
  EXPECT_EQ(deep.error().message, "JSON is nested deeper than 64");
  EXPECT_FALSE(parse_json(std::string(10'000'000, '[')));
  EXPECT_FALSE(parse_json(std::string(1'000'000, '{')));
  // Brackets in strings do not count, nor do escaped quotes end one.
  EXPECT_TRUE(parse_json('"' + std::string(1000, '[') + "\\\"" + std::string(1000, '{') + '"'));
}

TEST(Protocol, NumberOfValuesIsBounded) {
  EXPECT_TRUE(parse_json("[1,2,3]", {.max_values = 4}));
  EXPECT_FALSE(parse_json("[1,2,3]", {.max_values = 3}));
  EXPECT_FALSE(parse_json("[[],[]]", {.max_values = 3}));
  // A table of a million targets is within the limit for a message and within this one.
  EXPECT_TRUE(parse_json("[\"a,b,c\"]", {.max_values = 2}));
}

TEST(Protocol, HostileJsonIsAnError) {
  for (const char* text :
       {"", " ", "{", "}", "[1,]", "nul", "1e999", "-", "\"\\ud800\"", "\"\xff\"", "\"\xc3\"",
        "{\"a\":1}x", "\xef\xbb", "'a'", "// c\n1", "NaN", "\"\n\""}) {
    EXPECT_FALSE(parse_json(text)) << text;
  }
  EXPECT_FALSE(parse_json(std::string("{\0}", 3)));
  EXPECT_TRUE(parse_json("99999999999999999999999999999999"));
}

TEST(Protocol, LinesHaveNoOtherNewlineAndAreUtf8) {
  std::string line = to_line({{"message", "no '\xff\xfe' \n here"}});
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  auto back = parse_json(line);
  ASSERT_TRUE(back);
  EXPECT_EQ((*back)["message"], "no '\xef\xbf\xbd\xef\xbf\xbd' \n here");
}

TEST(Protocol, RequestRoundTrip) {
  auto line = encode_request(7, "status", {{"name", "v\xc3\xb6l"}});
  ASSERT_TRUE(line);
  auto message = parse_json(*line);
  ASSERT_TRUE(message);
  auto decoded = decode_request(*message);
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->id, 7);
  EXPECT_EQ(decoded->method, "status");
  EXPECT_EQ(decoded->params, json({{"name", "v\xc3\xb6l"}}));
}

TEST(Protocol, RequestIsNeverChangedToFitUtf8) {
  auto line = encode_request(1, "status", {{"name", "v\xf6l"}});
  ASSERT_FALSE(line);
  EXPECT_EQ(line.error().code, EILSEQ);
  EXPECT_EQ(line.error().message, "status: a word is not UTF-8");
}

TEST(Protocol, RefusesWhatIsNoRequest) {
  const std::array<std::pair<const char*, const char*>, 12> cases{{
      {R"([])", "the request is not a JSON object"},
      {R"(null)", "the request is not a JSON object"},
      {R"({})", "jsonrpc: missing"},
      {R"({"jsonrpc":2.0,"id":1,"method":"x"})", "jsonrpc: not \"2.0\""},
      {R"({"jsonrpc":"2.0","method":"x"})", "id: missing"},
      {R"({"jsonrpc":"2.0","id":null,"method":"x"})", "id: neither a string nor an integer"},
      {R"({"jsonrpc":"2.0","id":1.5,"method":"x"})", "id: neither a string nor an integer"},
      {R"({"jsonrpc":"2.0","id":[],"method":"x"})", "id: neither a string nor an integer"},
      {R"({"jsonrpc":"2.0","id":1})", "method: missing"},
      {R"({"jsonrpc":"2.0","id":1,"method":3})", "method: not a string"},
      {R"({"jsonrpc":"2.0","id":1,"method":"x","params":[]})", "params: not an object"},
      {R"({"jsonrpc":"2.0","id":1,"method":"x","params":null})", "params: not an object"},
  }};
  for (const auto& [text, why] : cases) {
    auto decoded = decode_request(*parse_json(text));
    ASSERT_FALSE(decoded) << text;
    EXPECT_EQ(decoded.error().message, why) << text;
  }
  EXPECT_TRUE(decode_request(*parse_json(R"({"jsonrpc":"2.0","id":"a","method":"x"})")));
}

TEST(Protocol, ReplyCarriesTheIdWhenThereIsOne) {
  EXPECT_EQ(reply_id({{"id", 3}}), 3);
  EXPECT_EQ(reply_id({{"id", "a"}}), "a");
  EXPECT_EQ(reply_id({{"id", json::object()}}), nullptr);
  EXPECT_EQ(reply_id(json::array()), nullptr);
}

TEST(Protocol, ErrorRoundTrip) {
  json reply = error_reply(5, RpcCode::CommandFailed, {ENXIO, "no device 'x'"});
  EXPECT_EQ(reply["error"]["code"], -32000);
  EXPECT_EQ(reply["error"]["data"], json({{"errno", ENXIO}, {"name", "ENXIO"}}));
  auto decoded = decode_reply(reply, 5);
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().code, ENXIO);
  EXPECT_EQ(decoded.error().message, "no device 'x'");
  json bad = error_reply(5, RpcCode::BadParams, {ENXIO, "name: missing"});
  EXPECT_EQ(bad["error"]["code"], -32602);
  EXPECT_EQ(bad["error"]["data"]["errno"], EINVAL);
  // An error without an id answers anything; a result does not.
  EXPECT_EQ(
      decode_reply(error_reply(nullptr, RpcCode::CommandFailed, {EACCES, "no"}), 9).error().code,
      EACCES);
  EXPECT_EQ(decode_reply(result_reply(nullptr, 1), 9).error().code, EPROTO);
}

TEST(Protocol, ReplyThatMakesNoSense) {
  for (const char* text :
       {"1", "[]", "{}", R"({"id":1})", R"({"id":2,"result":1})", R"({"id":"1","result":1})",
        R"({"id":1,"error":1})", R"({"id":1,"error":{}})", R"({"id":1,"error":{"message":4}})"}) {
    auto decoded = decode_reply(*parse_json(text), 1);
    ASSERT_FALSE(decoded) << text;
    EXPECT_EQ(decoded.error().code, EPROTO) << text;
  }
  for (const char* data : {"1", "{}", R"({"errno":"x"})", R"({"errno":-3})", R"({"errno":0})",
                           R"({"errno":1e30})", R"({"errno":99999999999})"}) {
    json reply = {{"id", 1}, {"error", {{"message", "m"}, {"data", *parse_json(data)}}}};
    auto decoded = decode_reply(reply, 1);
    ASSERT_FALSE(decoded) << data;
    EXPECT_EQ(decoded.error().code, EIO) << data;
  }
}

TEST(LineReader, AnyPartialReadsGiveTheSameLines) {
  std::mt19937 random(20240611);
  for (int round = 0; round < 500; ++round) {
    std::vector<std::string> lines(random() % 20);
    std::string stream;
    for (std::string& line : lines) {
      line.assign(random() % 50, static_cast<char>('a' + random() % 26));
      stream += line + '\n';
    }
    stream += "rest";
    LineReader reader(50);
    std::vector<std::string> got;
    for (size_t at = 0; at < stream.size();) {
      size_t piece = 1 + random() % 80;
      reader.feed(std::string_view(stream).substr(at, piece));
      at += piece;
      for (;;) {
        auto line = reader.next();
        ASSERT_TRUE(line);
        if (!*line) break;
        got.push_back(**line);
      }
    }
    EXPECT_EQ(got, lines);
    EXPECT_TRUE(reader.in_line());
  }
}

TEST(LineReader, BoundOnALine) {
  LineReader exact(4);
  exact.feed("abcd\n");
  EXPECT_EQ(**exact.next(), "abcd");
  EXPECT_FALSE(exact.in_line());
  exact.feed("abcd");
  ASSERT_TRUE(exact.next());
  exact.feed("e");
  EXPECT_EQ(exact.next().error().code, EMSGSIZE);
  LineReader complete(4);
  complete.feed("ab\nabcde\n");
  EXPECT_EQ(**complete.next(), "ab");
  EXPECT_EQ(complete.next().error().code, EMSGSIZE);
}

}  // namespace
}  // namespace dmfs
