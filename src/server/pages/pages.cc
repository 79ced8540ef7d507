#include "server/pages/pages.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

namespace inferneo {
namespace {

// No inline script or style runs, nothing is loaded from or sent to another place, no form leaves the page, nobody
// frames it, and text never becomes markup (trusted types): names and answers of models are shown as they are.
constexpr std::string_view kContentPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kContentTypes{{
    {".html", "text/html; charset=utf-8"},
    {".css", "text/css; charset=utf-8"},
    {".js", "text/javascript; charset=utf-8"},
    {".svg", "image/svg+xml"},
}};

std::string content_type_of(std::string_view path) {
  for (const auto& [ending, type] : kContentTypes) {
    if (path.ends_with(ending)) return std::string(type);
  }
  return "application/octet-stream";
}

const PageFile* find_file(std::string_view path) {
  const std::span<const PageFile> files = page_files();
  const auto found = std::find_if(files.begin(), files.end(), [&](const PageFile& file) { return file.path == path; });
  return found == files.end() ? nullptr : &*found;
}

// The client's copy is this one: `If-None-Match: "a", W/"b"` or `*`.
bool client_has(const HttpHead& head, std::string_view etag) {
  const std::string* const tags = head.header("if-none-match");
  return tags != nullptr && (*tags == "*" || tags->find(etag) != std::string::npos);
}

void respond_file(Exchange& exchange, std::string_view path) {
  const PageFile* const file = find_file(path);
  if (file == nullptr) return exchange.fail(make_error(ErrorCode::not_found, "The dashboard has no such file."));
  HttpResponse response;
  response.content_type = content_type_of(file->path);
  response.headers = {{"ETag", std::string(file->etag)},
                      {"Cache-Control", "no-cache"},  // asked for each time, sent only when it is another
                      {"Content-Security-Policy", std::string(kContentPolicy)},
                      {"Referrer-Policy", "no-referrer"},
                      {"X-Frame-Options", "DENY"}};
  if (client_has(exchange.request().head, file->etag)) {
    response.status = 304;
  } else {
    response.body = file->text;
  }
  exchange.respond(std::move(response));
}

}  // namespace

std::vector<Route> page_routes() {
  return {
      Route(Method::get, "/", AuthPolicy::open,
            [](std::shared_ptr<Exchange> exchange) { respond_file(*exchange, "index.html"); }),
      Route(Method::get, "/ui/{id}", AuthPolicy::open,
            [](std::shared_ptr<Exchange> exchange) { respond_file(*exchange, exchange->request().path_param); }),
  };
}

}  // namespace inferneo
