#include "server/wait_outlook.h"

#include <fmt/format.h>

#include "admission/retry_after.h"

namespace inferneo {

std::string wait_comment(const InferenceService& service, const std::string& model) {
  const std::optional<WaitOutlook> outlook = service.outlook(model);
  if (!outlook) return {};
  std::string text = (outlook->loading || outlook->place > 0 ? "loading " : "waiting for ") + outlook->model;
  if (outlook->place > 0) text += fmt::format(", place {}", outlook->place);
  if (outlook->left) text += fmt::format(", about {} s", retry_after_seconds(*outlook->left));
  return text;
}

HttpError with_retry_after(const InferenceService& service, const std::string& model, const Error& error) {
  HttpError out = to_http_error(error);
  if ((out.status != 429 && out.status != 503) || error.retry_after > 0) return out;
  const std::optional<WaitOutlook> outlook = service.outlook(model);
  if (outlook && outlook->left) out.retry_after = retry_after_seconds(*outlook->left);
  return out;
}

}  // namespace inferneo
