#include "server/wait_outlook.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace inferneo {
namespace {

constexpr double kLongestRetry = 600.0;  // seconds; beyond that an estimate says nothing

double seconds_shown(Duration left) { return std::clamp(std::ceil(to_seconds(left)), 1.0, kLongestRetry); }

}  // namespace

std::string wait_comment(const InferenceService& service, const std::string& model) {
  const std::optional<WaitOutlook> outlook = service.outlook(model);
  if (!outlook) return {};
  std::string text = (outlook->loading || outlook->place > 0 ? "loading " : "waiting for ") + outlook->model;
  if (outlook->place > 0) text += fmt::format(", place {}", outlook->place);
  if (outlook->left) text += fmt::format(", about {:.0f} s", seconds_shown(*outlook->left));
  return text;
}

HttpError with_retry_after(const InferenceService& service, const std::string& model, const Error& error) {
  HttpError out = to_http_error(error);
  if (out.status != 429 && out.status != 503) return out;
  const std::optional<WaitOutlook> outlook = service.outlook(model);
  if (outlook && outlook->left) out.retry_after = static_cast<int>(seconds_shown(*outlook->left));
  return out;
}

}  // namespace inferneo
