// SPDX-License-Identifier: Apache-2.0
// Objects that come and go with every bio, kept for reuse in a list per thread: no heap allocation
// in steady state, and no lock but once in kBatch objects. An object may be given back on another
// thread than it came from: what piles up on one thread moves to others in batches.
#pragma once

#include <cstddef>
#include <new>

#include "core/base/mutex.h"

namespace dmfs {

// T is default-constructible and has a member `T* pool_next`, which the pool uses while the object
// lies in it. Objects keep their state from use to use: the user resets them.
template <typename T>
class ObjectPool {
 public:
  static T* get() {
    Cache& cache = own_cache();
    if (!cache.head) {
      cache.head = cache.full ? cache.full : shared().take();
      cache.full = nullptr;
      cache.kept = cache.head ? kBatch : 0;
    }
    T* object = cache.head;
    if (!object) return new T();
    cache.head = object->pool_next;
    --cache.kept;
    return object;
  }

  static void put(T* object) {
    Cache& cache = own_cache();
    if (cache.gone) {
      delete object;
      return;
    }
    if (cache.kept == kBatch) {
      // A full batch stays as it is, the object starts the next one.
      if (cache.full) shared().give(cache.full);
      cache.full = cache.head;
      cache.head = nullptr;
      cache.kept = 0;
    }
    object->pool_next = cache.head;
    cache.head = object;
    ++cache.kept;
  }

 private:
  static constexpr size_t kBatch = 64;
  static constexpr size_t kMaxBatches = 64;

  static void free_list(T* head) {
    while (T* object = head) {
      head = object->pool_next;
      delete object;
    }
  }

  // Batches of kBatch objects that no thread has.
  class Shared {
   public:
    ~Shared() {
      while (count_ > 0) free_list(batches_[--count_]);
    }
    void give(T* batch) {
      {
        MutexLock lock(mutex_);
        if (count_ < kMaxBatches) {
          batches_[count_++] = batch;
          return;
        }
      }
      free_list(batch);
    }
    T* take() {
      MutexLock lock(mutex_);
      return count_ > 0 ? batches_[--count_] : nullptr;
    }

   private:
    Mutex mutex_;  // leaf
    T* batches_[kMaxBatches] DM_GUARDED_BY(mutex_);
    size_t count_ DM_GUARDED_BY(mutex_) = 0;
  };

  struct Cache {
    T* head = nullptr;
    T* full = nullptr;  // a whole batch, or none
    size_t kept = 0;    // how many `head` has
    bool gone = false;  // the thread is ending: destructors of other thread-locals may still put
    ~Cache() {
      gone = true;
      free_list(head);
      free_list(full);
      head = full = nullptr;
    }
  };

  static Shared& shared() {
    static Shared all;
    return all;
  }
  static Cache& own_cache() {
    thread_local Cache cache;
    return cache;
  }
};

}  // namespace dmfs
