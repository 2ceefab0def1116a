// SPDX-License-Identifier: Apache-2.0
// The store as a file: what is looked at before SQLite may touch it, and how a new one appears.
// SQLite creates, rolls back and converts files as it opens them; a file that is not ours must
// not meet it.
#pragma once

#include <string>

#include "core/base/result.h"

namespace dmfs {

// The path without symbolic links, so that one store has one lock. Looks at metadata only.
// Refuses what can never be a store: a missing parent directory (named; it is not created), a
// directory, a pipe or device, a file or directory that we may not read and write.
Result<std::string> resolve_store_path(const std::string& path);

enum class StoreFile {
  New,      // there is no file, or an empty one (as mktemp leaves it): create_store_file()
  Clean,    // everything is in the main file
  WithLog,  // the last daemon died: part of it is in "<store>-wal"
};

// Under the lock; reads only. Refuses a file that is not SQLite's or not ours (EINVAL), one that
// is shorter than its header says (EUCLEAN), and logs next to it that cannot be ours.
Result<StoreFile> inspect_store_file(const std::string& path);

// Under the lock, after inspect said New. Writes `image` beside the path, makes it durable and
// renames it into place: at any moment the store is absent (or empty) or whole. Its name is durable
// after sync_store_directory().
Status create_store_file(const std::string& path, const std::string& image);

// Makes the names in the store's directory durable.
Status sync_store_directory(const std::string& path);

}  // namespace dmfs
