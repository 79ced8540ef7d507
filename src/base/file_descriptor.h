// An open file that closes itself.
#pragma once

#include <unistd.h>

#include <utility>

namespace inferneo {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}  // takes it over; negative: none, as open() says it
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }

  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

}  // namespace inferneo
