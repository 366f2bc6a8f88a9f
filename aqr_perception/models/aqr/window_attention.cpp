// SPDX-FileCopyrightText: aqr_perception maintainers
// SPDX-License-Identifier: Apache-2.0

// The router's attention inside single windows, on CPUs; see router.py.

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

extern "C" {

// Writes each window's attention-weighted sum of values and the log-sum-exp of its scores.
//
// projected: (queries, heads, channels), scaled; keys, values: (tokens, channels).
// query: (windows); near: (windows, width), tokens; inside: (windows, width), 0 for tokens that do not count.
// sums: (windows, heads, channels); lse: (windows, heads).
void aqr_attend_windows(const float* projected, const float* keys, const float* values, const int64_t* query,
                        const int64_t* near, const uint8_t* inside, float* sums, float* lse, int64_t windows,
                        int64_t width, int heads, int channels, int threads) {
  const int64_t size = static_cast<int64_t>(heads) * channels;
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> scores(width * heads);
#pragma omp for schedule(dynamic, 8)
    for (int64_t at = 0; at < windows; ++at) {
      const int64_t* tokens = near + at * width;
      const uint8_t* counts = inside + at * width;
      const float* asked = projected + query[at] * size;
      float* sum = sums + at * size;
      for (int head = 0; head < heads; ++head) {
        const float* q = asked + head * channels;
        float* score = scores.data() + head * width;
        float most = -std::numeric_limits<float>::infinity();
        for (int64_t token = 0; token < width; ++token) {
          if (!counts[token]) continue;
          const float* k = keys + tokens[token] * channels;
          float product = 0.0f;
#pragma omp simd reduction(+ : product)
          for (int i = 0; i < channels; ++i) product += q[i] * k[i];
          score[token] = product;
          if (product > most) most = product;
        }
        float total = 0.0f;
        for (int64_t token = 0; token < width; ++token) {
          score[token] = counts[token] ? std::exp(score[token] - most) : 0.0f;
          total += score[token];
        }
        lse[at * heads + head] = most + std::log(total);
        float* result = sum + head * channels;
        for (int i = 0; i < channels; ++i) result[i] = 0.0f;
        for (int64_t token = 0; token < width; ++token) {
          if (!counts[token]) continue;
          const float share = score[token] / total;
          const float* v = values + tokens[token] * channels;
#pragma omp simd
          for (int i = 0; i < channels; ++i) result[i] += share * v[i];
        }
      }
    }
  }
}

}  // extern "C"
