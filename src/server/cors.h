// Which web pages of other origins may read answers: the fields of the Fetch standard's CORS protocol.
//
// Pure and immutable. Off (no field is ever sent) unless origins are listed. Credentials of the browser (cookies) are
// never allowed: keys travel in Authorization, which a page has to send by itself.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/http_message.h"

namespace inferneo {

class Cors {
 public:
  explicit Cors(std::vector<std::string> allowed_origins);  // "*": all

  bool allows(std::string_view origin) const;
  // What every answer to this request carries, errors and streams included.
  HeaderList headers(const HttpHead& request) const;
  // The answer to a preflight of a listed origin; none when the request is not one.
  std::optional<HttpResponse> preflight(const HttpHead& request) const;

 private:
  std::vector<std::string> allowed_origins_;
  bool any_ = false;
};

}  // namespace inferneo
