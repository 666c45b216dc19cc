// Just enough of CUDA C++ for g++: the same kernel source, run by the processor's threads instead of a device's.
#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
// Blocks run one after another, so that one static array is the block's own.
#define __shared__ static

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

static thread_local dim3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static std::unique_ptr<std::barrier<>> at_barrier;

inline void __syncthreads() {
  at_barrier->arrive_and_wait();
}

inline long long __double_as_longlong(double x) {
  long long bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline double __longlong_as_double(long long bits) {
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

using std::max;
using std::min;

inline double normcdf(double x) {
  return 0.5 * erfc(-0.70710678118654752440 * x);
}

// Calls run() for every thread of every block. Only kernels with barriers need true threads.
template <typename Run>
void for_every_thread(unsigned grid_x, unsigned grid_y, unsigned threads, bool barriers, Run run) {
  gridDim = {grid_x, grid_y, 1};
  blockDim = {threads, 1, 1};
  for (unsigned y = 0; y < grid_y; ++y) {
    for (unsigned x = 0; x < grid_x; ++x) {
      auto one = [=](unsigned thread) {
        blockIdx = {x, y, 0};
        threadIdx = {thread, 0, 0};
        run();
      };
      if (!barriers) {
        for (unsigned thread = 0; thread < threads; ++thread) one(thread);
        continue;
      }
      at_barrier = std::make_unique<std::barrier<>>(threads);
      std::vector<std::thread> all;
      for (unsigned thread = 0; thread < threads; ++thread) all.emplace_back(one, thread);
      for (auto& each : all) each.join();
    }
  }
}
