// SPDX-License-Identifier: Apache-2.0
// A directory that goes with the test, and files in it.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace dmfs::test {

class TempDir {
 public:
  TempDir() {
    std::string path = std::filesystem::temp_directory_path() / "dmfs-test-XXXXXX";
    if (!mkdtemp(path.data())) ADD_FAILURE() << "mkdtemp " << path;
    path_ = path;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  std::string path(const std::string& name) const { return path_ + "/" + name; }
  // Makes a sparse file and returns its path.
  std::string file(const std::string& name, uint64_t sectors) const {
    std::ofstream(path(name)).close();
    std::filesystem::resize_file(path(name), sectors * 512);
    return path(name);
  }

 private:
  std::string path_;
};

}  // namespace dmfs::test
