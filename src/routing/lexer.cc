#include "routing/lexer.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "routing/text_match.h"

namespace inferneo {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool begins_word(char c) { return (lower_ascii(c) >= 'a' && lower_ascii(c) <= 'z') || c == '_'; }
bool in_word(char c) { return begins_word(c) || is_digit(c); }

// What people write who know other languages, and what it is called here.
struct Foreign {
  std::string_view written;
  std::string_view hint;
};
constexpr Foreign kForeign[] = {
    {"&&", "write 'and'"},
    {"&", "write 'and'"},
    {"||", "write 'or'"},
    {"|", "write 'or'"},
    {"!", "write 'not'"},
    {"=", "write '=='"},
    {"\u2018", "texts stand in plain quotes: 'text'"},
    {"\u2019", "texts stand in plain quotes: 'text'"},
    {"\u201C", "texts stand in plain quotes: 'text'"},
    {"\u201D", "texts stand in plain quotes: 'text'"},
    {"`", "texts stand in plain quotes: 'text'"},
};
constexpr std::string_view kSymbols[] = {"==", "!=", "<=", ">=", "<", ">", "(", ")", "[", "]", ","};

class Lexer {
 public:
  Lexer(std::string_view text, ConditionFault& fault) : text_(text), fault_(fault) {}

  std::vector<RoutingToken> run() {
    std::vector<RoutingToken> tokens;
    while (true) {
      while (at_ < text_.size() && is_space(text_[at_])) ++at_;
      RoutingToken token;
      token.begin = at_;
      if (!read(token)) return {};
      token.end = at_;
      tokens.push_back(std::move(token));
      if (tokens.back().kind == TokenKind::end) return tokens;
    }
  }

 private:
  bool fail(size_t begin, size_t end, std::string message, std::string hint = {}) {
    fault_ = {begin, end, std::move(message), std::move(hint)};
    return false;
  }

  bool read(RoutingToken& token) {
    if (at_ == text_.size()) return true;
    const char c = text_[at_];
    if (begins_word(c)) {
      token.kind = TokenKind::word;
      while (at_ < text_.size() && in_word(text_[at_])) ++at_;
      token.value = lower_ascii(text_.substr(token.begin, at_ - token.begin));
      return true;
    }
    if (c == '\'' || c == '"') return read_text(token);
    if (c == '/') return read_regex(token);
    if (is_digit(c) || (c == '-' && at_ + 1 < text_.size() && is_digit(text_[at_ + 1]))) return read_number(token);
    return read_symbol(token);
  }

  bool read_text(RoutingToken& token) {
    token.kind = TokenKind::text;
    const char quote = text_[at_++];
    while (at_ < text_.size() && text_[at_] != quote) {
      if (text_[at_] != '\\') {
        token.value += text_[at_++];
        continue;
      }
      const std::optional<char> meant = at_ + 1 < text_.size() ? unescaped(text_[at_ + 1]) : std::nullopt;
      if (!meant) {
        return fail(at_, at_ + 2, "unknown escape in a text", "there are \\\\ \\' \\\" \\n \\r and \\t");
      }
      token.value += *meant;
      at_ += 2;
    }
    if (at_ == text_.size()) {
      return fail(token.begin, token.begin + 1, "a text that does not end", fmt::format("close it with {}", quote));
    }
    ++at_;
    return true;
  }

  static std::optional<char> unescaped(char c) {
    switch (c) {
      case '\\':
      case '\'':
      case '"':
        return c;
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      default:
        return std::nullopt;
    }
  }

  bool read_regex(RoutingToken& token) {
    token.kind = TokenKind::regex;
    ++at_;
    while (at_ < text_.size() && text_[at_] != '/') {
      if (text_[at_] == '\\' && at_ + 1 < text_.size()) {
        if (text_[at_ + 1] != '/') token.value += '\\';  // \/ is the slash that does not end it
        ++at_;
      }
      token.value += text_[at_++];
    }
    if (at_ == text_.size()) {
      return fail(token.begin, token.begin + 1, "a regular expression that does not end",
                  "close it with /, and write \\/ for a slash within");
    }
    ++at_;
    const size_t flags = at_;
    while (at_ < text_.size() && in_word(text_[at_])) ++at_;
    token.flags = std::string(text_.substr(flags, at_ - flags));
    const size_t unknown = token.flags.find_first_not_of("ims");
    if (unknown != std::string::npos) {
      return fail(flags + unknown, flags + unknown + 1, "unknown flag of a regular expression",
                  "there are i (either case), m (^ and $ at each line) and s (. takes line ends too)");
    }
    return true;
  }

  bool read_number(RoutingToken& token) {
    token.kind = TokenKind::number;
    if (text_[at_] == '-') ++at_;
    while (at_ < text_.size() && (in_word(text_[at_]) || text_[at_] == '.')) ++at_;
    const char* end = text_.data() + at_;
    const auto read = std::from_chars(text_.data() + token.begin, end, token.number, std::chars_format::fixed);
    if (read.ec != std::errc() || read.ptr != end || at_ - token.begin > 32) {
      return fail(token.begin, at_, "not a number", "numbers are written as 1000 or 0.8");
    }
    return true;
  }

  bool read_symbol(RoutingToken& token) {
    const std::string_view rest = text_.substr(at_);
    token.kind = TokenKind::symbol;
    for (const std::string_view symbol : kSymbols) {
      if (!rest.starts_with(symbol)) continue;
      token.value = std::string(symbol);
      at_ += symbol.size();
      return true;
    }
    for (const Foreign& foreign : kForeign) {
      if (rest.starts_with(foreign.written)) {
        return fail(at_, at_ + foreign.written.size(), fmt::format("unexpected {}", foreign.written),
                    std::string(foreign.hint));
      }
    }
    return fail(at_, at_ + 1, "a character that means nothing here", "texts stand in quotes: 'text'");
  }

  const std::string_view text_;
  ConditionFault& fault_;
  size_t at_ = 0;
};

}  // namespace

std::vector<RoutingToken> tokenize_condition(std::string_view text, ConditionFault& fault) {
  return Lexer(text, fault).run();
}

}  // namespace inferneo
