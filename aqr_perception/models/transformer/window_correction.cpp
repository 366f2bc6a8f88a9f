// SPDX-FileCopyrightText: aqr_perception maintainers
// SPDX-License-Identifier: Apache-2.0

// Correction of plain attention for a bias inside windows, on CPUs; see attention.py for the equations.

#include <cmath>
#include <cstdint>

extern "C" {

// Adds each window's (e^bias - 1) e^(score - lse) v to a query's output, and its sum to the query's share of a segment.
//
// query: (queries, heads, width), scaled; keys, values: (any, heads, width); lse: (queries, heads).
// starts: (queries + 1), the range of each query's windows. windows: (any, 7): first token of the grid, columns of the
// grid, first and last + 1 row, first and last + 1 column, segment. growth: (any), e^bias - 1.
// output: (queries, heads, width); share: (queries, heads, segments).
void aqr_correct(const float* query, const float* keys, const float* values, const float* lse, const int64_t* starts,
                 const int64_t* windows, const float* growth, float* output, float* share, int64_t queries, int heads,
                 int width, int segments, int threads) {
  const int64_t size = static_cast<int64_t>(heads) * width;
#pragma omp parallel for schedule(dynamic, 8) num_threads(threads)
  for (int64_t row = 0; row < queries; ++row) {
    for (int64_t at = starts[row]; at < starts[row + 1]; ++at) {
      const int64_t* window = windows + at * 7;
      for (int64_t y = window[2]; y < window[3]; ++y) {
        for (int64_t x = window[4]; x < window[5]; ++x) {
          const int64_t token = (window[0] + y * window[1] + x) * size;
          for (int head = 0; head < heads; ++head) {
            const float* q = query + row * size + head * width;
            const float* k = keys + token + head * width;
            const float* v = values + token + head * width;
            float* sum = output + row * size + head * width;
            float score = 0.0f;
#pragma omp simd reduction(+ : score)
            for (int i = 0; i < width; ++i) score += q[i] * k[i];
            const float extra = growth[at] * std::exp(score - lse[row * heads + head]);
#pragma omp simd
            for (int i = 0; i < width; ++i) sum[i] += extra * v[i];
            share[(row * heads + head) * segments + window[6]] += extra;
          }
        }
      }
    }
  }
}

}  // extern "C"
