// The tensors of a model by name, over one safetensors file or all shards of an index, in mapped memory.
//
// Ownership: holds the mappings; views stay valid as long as the Checkpoint does. Mappings are booked by the ledger.
// Immutable: any number of threads may read.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/model_directory.h"
#include "formats/safetensors.h"
#include "tensor/memory.h"

namespace inferneo {

class Checkpoint {
 public:
  // model.safetensors, else the shards of model.safetensors.index.json, else the only *.safetensors file there is.
  // Every shard must be a plain file name in the directory, hold the tensors that the index claims, and no tensor may
  // be in two shards. Errors: those of ModelDirectory and SafetensorsFile; out_of_memory; refused for pickles.
  static Result<Checkpoint> open(MemoryLedger& ledger, const std::string& model, const ModelDirectory& directory);
  // The same for names, types and shapes only: nothing but the headers is read and booked, and the tensors' bytes have
  // a size but cannot be read.
  static Result<Checkpoint> open_headers(MemoryLedger& ledger, const std::string& model,
                                         const ModelDirectory& directory);

  const SafetensorsTensor* find(std::string_view name) const;  // null when absent
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  const std::vector<const SafetensorsTensor*>& tensors() const { return by_name_; }  // sorted by name
  size_t total_bytes() const { return total_bytes_; }                                // of all tensors
  // A shard was cut short on disk after it was mapped: its values can no longer be trusted.
  bool truncated() const;
  // Gives a tensor's pages back to the system; they are read from the file again when they are touched. For who reads
  // each tensor once.
  void forget(const SafetensorsTensor& tensor) const;
  std::vector<std::string> shards() const;  // names of the files in the directory
  size_t file_bytes() const;                // of all of them
  size_t booked_bytes() const;              // of their mappings

 private:
  static Result<Checkpoint> open_shards(MemoryLedger& ledger, const std::string& model, const ModelDirectory& directory,
                                        bool headers_only);
  struct Shard {
    std::string name;
    std::shared_ptr<const MappedFile> mapping;
    SafetensorsFile file;
  };
  Status add_shard(MemoryLedger& ledger, const std::string& model, const ModelDirectory& directory,
                   const std::string& name, bool headers_only);
  Status index_tensors();
  const Shard* find_shard(std::string_view name) const;

  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<const SafetensorsTensor*> by_name_;
  size_t total_bytes_ = 0;
};

}  // namespace inferneo
