// SPDX-License-Identifier: Apache-2.0
// Objects that come and go with every bio, kept for reuse in a list per thread: no lock, and no
// heap allocation in steady state. An object may be given back on another thread than it came
// from; what that thread does not want to keep goes to the heap.
#pragma once

#include <cstddef>
#include <new>

namespace dmfs {

// T is default-constructible and has a member `T* pool_next`, which the pool uses while the object
// lies in it. Objects keep their state from use to use: the user resets them.
template <typename T, size_t kMaxKept = 256>
class ObjectPool {
 public:
  static T* get() {
    Cache& cache = own_cache();
    if (T* object = cache.head) {
      cache.head = object->pool_next;
      --cache.kept;
      return object;
    }
    return new T();
  }
  static void put(T* object) {
    Cache& cache = own_cache();
    if (cache.kept >= kMaxKept || cache.gone) {
      delete object;
      return;
    }
    object->pool_next = cache.head;
    cache.head = object;
    ++cache.kept;
  }

 private:
  struct Cache {
    T* head = nullptr;
    size_t kept = 0;
    bool gone = false;  // the thread is ending: destructors of other thread-locals may still put
    ~Cache() {
      gone = true;
      while (T* object = head) {
        head = object->pool_next;
        delete object;
      }
    }
  };
  static Cache& own_cache() {
    thread_local Cache cache;
    return cache;
  }
};

}  // namespace dmfs
