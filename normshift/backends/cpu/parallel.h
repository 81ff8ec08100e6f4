// Work in several threads. How it is cut may depend on their number, what is computed may not.

#pragma once

#include <cstdint>

namespace normshift {

// Calls `work(first, last + 1, context)` for parts of begin..end of `grain` or more. Defined by whoever has the
// threads.
void in_threads(int64_t begin, int64_t end, int64_t grain, void (*work)(int64_t, int64_t, void*), void* context);

// The number of threads at hand.
int64_t threads();

// f(first, last + 1).
template <typename F>
void parallel(int64_t begin, int64_t end, int64_t grain, const F& f) {
  if (end - begin <= grain) {
    if (begin < end) f(begin, end);
    return;
  }
  auto work = [](int64_t first, int64_t last, void* context) { (*static_cast<const F*>(context))(first, last); };
  in_threads(begin, end, grain, work, const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace normshift
