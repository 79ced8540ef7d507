#include "server/request_id.h"

#include <random>

namespace inferneo {
namespace {

constexpr std::string_view kAlphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

bool is_alphanumeric(char c) { return kAlphabet.find(c) != std::string_view::npos; }

}  // namespace

std::string random_id(std::string_view prefix, size_t length) {
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  std::uniform_int_distribution<size_t> pick(0, kAlphabet.size() - 1);
  std::string id(prefix);
  for (size_t i = 0; i < length; ++i) id.push_back(kAlphabet[pick(generator)]);
  return id;
}

std::string new_request_id() { return random_id("req-", 24); }

bool is_sane_request_id(std::string_view id) {
  if (id.empty() || id.size() > 128) return false;
  for (const char c : id) {
    if (!is_alphanumeric(c) && c != '-' && c != '_' && c != '.' && c != ':') return false;
  }
  return true;
}

}  // namespace inferneo
