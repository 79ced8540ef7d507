#include "support/cuda/fake_nccl.h"

#include <cstring>
#include <deque>
#include <map>
#include <memory>

#include "support/cuda/fake_driver.h"

namespace inferneo::cuda {
namespace {

constexpr NcclResult kInvalidArgument = 4;
constexpr NcclResult kInvalidUsage = 5;
constexpr NcclResult kUnhandledCudaError = 1;

struct Call {
  bool is_reduce = false;
  const void* from = nullptr;
  void* to = nullptr;
  size_t count = 0;
  bool done = false;
};

// The ranks that were made together.
struct Clique {
  std::vector<std::deque<std::shared_ptr<Call>>> arrived;  // [ranks]
  bool aborted = false;

  void meet() {
    for (const auto& calls : arrived) {
      if (calls.empty()) return;
    }
    const Call first = *arrived[0].front();
    if (first.is_reduce) {
      std::vector<float> sum(first.count, 0.0F);
      for (const auto& calls : arrived) {
        const auto* from = static_cast<const float*>(calls.front()->from);
        for (size_t i = 0; i < first.count; ++i) sum[i] = &calls == arrived.data() ? from[i] : sum[i] + from[i];
      }
      for (const auto& calls : arrived) std::memcpy(calls.front()->to, sum.data(), sum.size() * sizeof(float));
    } else {
      for (const auto& calls : arrived) std::memmove(calls.front()->to, first.from, first.count);
    }
    for (auto& calls : arrived) {
      calls.front()->done = true;
      calls.pop_front();
    }
  }
};

struct Comm {
  std::shared_ptr<Clique> clique;
  size_t rank = 0;
  CuPointer memory = 0;
};

struct State {
  std::vector<std::string> log;
  int communicators = 0;
  size_t memory = 0;
  int group_depth = 0;
  std::vector<std::pair<CuStream, FakeStreamWork>> grouped;
  std::map<std::string, std::pair<NcclResult, int>> failures;
  NcclResult async = kNcclSuccess;
};
State& state() {
  static State* instance = new State();
  return *instance;
}

NcclResult enter(const char* call) {
  const auto found = state().failures.find(call);
  if (found == state().failures.end() || found->second.second-- > 0) return kNcclSuccess;
  const NcclResult result = found->second.first;
  state().failures.erase(found);
  return result;
}
Comm& comm_of(NcclComm comm) { return *reinterpret_cast<Comm*>(comm); }

NcclResult version(int* version) {
  *version = 22803;
  return kNcclSuccess;
}
const char* error_string(NcclResult) { return "as the fake NCCL was told"; }

NcclResult init_all(NcclComm* comms, int count, const int* devices) {
  std::string line = "init";
  for (int i = 0; i < count; ++i) line += " " + std::to_string(devices[i]);
  state().log.push_back(line);
  if (const NcclResult failed = enter("init"); failed != 0) return failed;
  auto clique = std::make_shared<Clique>();
  clique->arrived.resize(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    auto* comm = new Comm{clique, static_cast<size_t>(i)};
    if (state().memory > 0) {
      (void)fake_driver().context_set(reinterpret_cast<CuContext>(static_cast<uintptr_t>(devices[i]) + 1));
      if (fake_driver().memory_alloc(&comm->memory, state().memory) != 0) return kUnhandledCudaError;
    }
    comms[i] = reinterpret_cast<NcclComm>(comm);
    ++state().communicators;
  }
  return kNcclSuccess;
}
NcclResult end(NcclComm comm, const char* how) {
  state().log.push_back(std::string(how) + " " + std::to_string(comm_of(comm).rank));
  --state().communicators;
  if (comm_of(comm).memory != 0) (void)fake_driver().memory_free(comm_of(comm).memory);
  delete &comm_of(comm);
  return kNcclSuccess;
}
NcclResult destroy(NcclComm comm) { return end(comm, "destroy"); }
NcclResult abort_comm(NcclComm comm) {
  comm_of(comm).clique->aborted = true;
  advance_fake_streams();
  return end(comm, "abort");
}
NcclResult async_error(NcclComm, NcclResult* error) {
  if (const NcclResult failed = enter("async"); failed != 0) state().async = failed;
  *error = state().async;
  return kNcclSuccess;
}
NcclResult group_start() {
  state().log.emplace_back("start");
  if (const NcclResult failed = enter("start"); failed != 0) return failed;
  ++state().group_depth;
  return kNcclSuccess;
}
// What was asked for in a group is launched at its end, or not at all.
NcclResult group_end() {
  state().log.emplace_back("end");
  if (--state().group_depth < 0) return kInvalidUsage;
  auto grouped = std::move(state().grouped);
  state().grouped.clear();
  if (const NcclResult failed = enter("end"); failed != 0) return failed;
  if (enter("lost") != 0) grouped.pop_back();
  for (auto& [stream, work] : grouped) {
    if (enqueue_fake_work(stream, std::move(work)) != 0) return kUnhandledCudaError;
  }
  return kNcclSuccess;
}

// A call outside of a group by one thread for several ranks would wait for itself.
NcclResult ask(const char* name, Call call, NcclComm comm, CuStream stream) {
  state().log.push_back(std::string(name) + " " + std::to_string(comm_of(comm).rank) + " " +
                        std::to_string(call.count));
  if (const NcclResult failed = enter(name); failed != 0) return failed;
  if (state().group_depth == 0 && comm_of(comm).clique->arrived.size() > 1) return kInvalidUsage;
  if (call.from == nullptr || call.to == nullptr) return kInvalidArgument;
  // A graph's copy of it arrives anew at each launch.
  auto work = [clique = comm_of(comm).clique, rank = comm_of(comm).rank, call,
               mine = std::shared_ptr<Call>()]() mutable {
    if (clique->aborted) return true;
    if (mine == nullptr) {
      mine = std::make_shared<Call>(call);
      clique->arrived[rank].push_back(mine);
      clique->meet();
    }
    return mine->done;
  };
  if (state().group_depth > 0) {
    state().grouped.emplace_back(stream, std::move(work));
    return kNcclSuccess;
  }
  return enqueue_fake_work(stream, std::move(work)) == 0 ? kNcclSuccess : kUnhandledCudaError;
}
NcclResult all_reduce(const void* from, void* to, size_t count, int type, int operation, NcclComm comm,
                      CuStream stream) {
  if (type != kNcclFloat32 || operation != kNcclSum) return kInvalidArgument;
  return ask("reduce", {true, from, to, count}, comm, stream);
}
NcclResult broadcast(const void* from, void* to, size_t count, int type, int root, NcclComm comm, CuStream stream) {
  if (type != kNcclUint8 || root != 0) return kInvalidArgument;
  return ask("broadcast", {false, from, to, count}, comm, stream);
}

constexpr NcclApi kApi = {version,     error_string, init_all,  destroy,    abort_comm,
                          async_error, group_start,  group_end, all_reduce, broadcast};

}  // namespace

const NcclApi& fake_nccl() { return kApi; }
void reset_fake_nccl() { state() = State(); }
std::vector<std::string>& fake_nccl_log() { return state().log; }
size_t& fake_nccl_memory() { return state().memory; }
int fake_nccl_communicators() { return state().communicators; }
void fail_fake_nccl(const std::string& call, NcclResult result, int after) { state().failures[call] = {result, after}; }

}  // namespace inferneo::cuda
