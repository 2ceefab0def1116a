// SPDX-License-Identifier: Apache-2.0
#include "core/io/io_slot.h"

#include <new>

namespace dmfs {

void IoEntryList::push_back(IoEntry& entry) {
  entry.prev = last;
  entry.next_entry = nullptr;
  (last ? last->next_entry : first) = &entry;
  last = &entry;
}

void IoEntryList::remove(IoEntry& entry) {
  (entry.prev ? entry.prev->next_entry : first) = entry.next_entry;
  (entry.next_entry ? entry.next_entry->prev : last) = entry.prev;
  entry.prev = entry.next_entry = nullptr;
}

IoSlot* IoSlot::create(IoClientCore& core, BufferSource& source, const Size& size) {
  std::unique_ptr<IoSlot> slot(new (std::nothrow) IoSlot);
  if (!slot) return nullptr;
  slot->core = &core;
  slot->size = size;
  slot->entries.reset(new (std::nothrow) IoEntry[size.entries]);
  bool short_of = !slot->entries;
  if (size.buffer > 0 && !short_of) {
    slot->buffer = source.get(size.buffer);
    short_of = !slot->buffer;
  }
  if (size.segments > 0 && !short_of) {
    slot->segments = reinterpret_cast<iovec*>(source.get(size.segments * sizeof(iovec)));
    short_of = !slot->segments;
  }
  if (short_of) {
    slot.release()->destroy(source);
    return nullptr;
  }
  for (unsigned i = 0; i < size.entries; ++i) slot->entries[i].slot = slot.get();
  return slot.release();
}

void IoSlot::destroy(BufferSource& source) {
  if (buffer) source.put(buffer);
  if (segments) source.put(reinterpret_cast<std::byte*>(segments));
  delete this;
}

}  // namespace dmfs
