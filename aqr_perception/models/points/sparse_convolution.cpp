// SPDX-FileCopyrightText: aqr_perception maintainers
// SPDX-License-Identifier: Apache-2.0

// Sparse 3D convolution for CPUs: neighbour tables of occupied cells, and a blocked gather - multiply - add.
//
// A C interface without torch's headers compiles in seconds and needs no Python development files.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

typedef float Vector __attribute__((vector_size(64), aligned(4), may_alias));

constexpr int kLanes = 16;
constexpr int kBlock = 128;  // output rows whose sums stay in the first two caches
constexpr int kRows = 6;     // 6 rows of 4 vectors: 24 of the 32 registers of AVX-512

// Adds Count gathered rows times a (inputs, columns) matrix to their sums, Wide vectors of the columns at a time.
template <int Count, int Wide>
inline void multiply(const float* const* rows, float* const* sums, const float* matrix, int inputs, int columns) {
  Vector sum[Count][Wide];
  for (int r = 0; r < Count; ++r)
    for (int v = 0; v < Wide; ++v) sum[r][v] = Vector{};  // an offset's sum of its own: smaller rounding errors
  for (int i = 0; i < inputs; ++i) {
    const float* line = matrix + static_cast<int64_t>(i) * columns;
    Vector weight[Wide];
    for (int v = 0; v < Wide; ++v) weight[v] = *reinterpret_cast<const Vector*>(line + v * kLanes);
    for (int r = 0; r < Count; ++r)
      for (int v = 0; v < Wide; ++v) sum[r][v] += rows[r][i] * weight[v];
  }
  for (int r = 0; r < Count; ++r)
    for (int v = 0; v < Wide; ++v) *reinterpret_cast<Vector*>(sums[r] + v * kLanes) += sum[r][v];
}

template <int Wide>
void multiply_rows(const float** rows, float** sums, int count, const float* matrix, int inputs, int columns) {
  int done = 0;
  for (; done + kRows <= count; done += kRows)
    multiply<kRows, Wide>(rows + done, sums + done, matrix, inputs, columns);
  for (; done + 2 <= count; done += 2) multiply<2, Wide>(rows + done, sums + done, matrix, inputs, columns);
  if (done < count) multiply<1, Wide>(rows + done, sums + done, matrix, inputs, columns);
}

inline int64_t floor_divide(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// Calls visit(key of the output cell, index of the kernel's offset) for each output of the strided convolution that
// covers an input cell.
template <typename Visit>
inline void for_each_output(int64_t in_key, const int64_t* in_grid, const int64_t* out_grid, const int64_t* kernel,
                            const int64_t* stride, const int64_t* padding, const Visit& visit) {
  const int64_t row = in_key / in_grid[2], x = in_key % in_grid[2];
  const int64_t plane = row / in_grid[1], y = row % in_grid[1];
  const int64_t sample = plane / in_grid[0], z = plane % in_grid[0];
  const int64_t cell[3] = {z, y, x};
  int64_t from[3], to[3];
  for (int axis = 0; axis < 3; ++axis) {
    from[axis] = std::max<int64_t>(0, -floor_divide(-(cell[axis] + padding[axis] - kernel[axis] + 1), stride[axis]));
    to[axis] = std::min(out_grid[axis] - 2, floor_divide(cell[axis] + padding[axis], stride[axis]));
  }
  for (int64_t oz = from[0]; oz <= to[0]; ++oz)
    for (int64_t oy = from[1]; oy <= to[1]; ++oy)
      for (int64_t ox = from[2]; ox <= to[2]; ++ox) {
        const int64_t kz = z + padding[0] - oz * stride[0], ky = y + padding[1] - oy * stride[1];
        const int64_t kx = x + padding[2] - ox * stride[2];
        visit(((sample * out_grid[0] + oz) * out_grid[1] + oy) * out_grid[2] + ox,
              (kz * kernel[1] + ky) * kernel[2] + kx);
      }
}

}  // namespace

extern "C" {

// outputs (rows, columns) = relu(sum over offsets of features[table[row, offset]] kernel[offset] + bias + residual).
//
// features: (any, inputs). table: (rows, offsets), -1 without a neighbour. kernel: (offsets, inputs, columns) with
// columns divisible by 16. residual: (rows, columns), or null.
void aqr_convolve(const float* features, const int32_t* table, const float* kernel, const float* bias,
                  const float* residual, float* outputs, int64_t rows, int offsets, int inputs, int columns,
                  int threads) {
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads)
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = block * kBlock;
    const int count = static_cast<int>(std::min<int64_t>(kBlock, rows - first));
    float* sums = outputs + first * columns;
    for (int row = 0; row < count; ++row) {
      float* sum = sums + static_cast<int64_t>(row) * columns;
      if (residual == nullptr) {
        std::memcpy(sum, bias, columns * sizeof(float));
      } else {
        const float* added = residual + (first + row) * columns;
        for (int c = 0; c < columns; ++c) sum[c] = bias[c] + added[c];
      }
    }
    const float* gathered[kBlock];
    float* targets[kBlock];
    float* shifted[kBlock];
    for (int offset = 0; offset < offsets; ++offset) {
      const float* matrix = kernel + static_cast<int64_t>(offset) * inputs * columns;
      int found = 0;
      for (int row = 0; row < count; ++row) {
        const int32_t source = table[(first + row) * offsets + offset];
        if (source >= 0) {
          gathered[found] = features + static_cast<int64_t>(source) * inputs;
          targets[found++] = sums + static_cast<int64_t>(row) * columns;
        }
      }
      int column = 0;
      for (; found > 0 && column < columns;) {
        for (int r = 0; r < found; ++r) shifted[r] = targets[r] + column;
        const int left = (columns - column) / kLanes;
        if (left >= 4) {
          multiply_rows<4>(gathered, shifted, found, matrix + column, inputs, columns);
          column += 4 * kLanes;
        } else if (left >= 2) {
          multiply_rows<2>(gathered, shifted, found, matrix + column, inputs, columns);
          column += 2 * kLanes;
        } else {
          multiply_rows<1>(gathered, shifted, found, matrix + column, inputs, columns);
          column += kLanes;
        }
      }
    }
    const int64_t size = static_cast<int64_t>(count) * columns;
    for (int64_t i = 0; i < size; ++i) sums[i] = sums[i] < 0.0f ? 0.0f : sums[i];  // keeps NaN, as torch does
  }
}

// table (count, 27): neighbours of ascending keys of a grid with `height` rows and `width` columns a layer.
void aqr_neighbours(const int64_t* keys, int64_t count, int64_t height, int64_t width, int32_t* table, int threads) {
  const int64_t chunk = 4096;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int64_t first = 0; first < count; first += chunk) {
    const int64_t last = std::min(count, first + chunk);
    for (int line = 0; line < 9; ++line) {
      // Shifted keys ascend as the keys do, so a pointer that only advances finds the neighbours without a search.
      const int64_t shift = ((line / 3 - 1) * height + line % 3 - 1) * width - 1;
      int64_t at = std::lower_bound(keys, keys + count, keys[first] + shift) - keys;
      for (int64_t site = first; site < last; ++site) {
        const int64_t wanted = keys[site] + shift;
        while (at < count && keys[at] < wanted) ++at;
        int64_t next = at;
        for (int step = 0; step < 3; ++step) {
          const bool hit = next < count && keys[next] == wanted + step;
          table[site * 27 + line * 3 + step] = hit ? static_cast<int32_t>(next) : -1;
          next += hit;
        }
      }
    }
  }
}

// Marks the output cells of a strided convolution; returns their number. `bits` has one bit for each output key, zeroed
// before, and `ranks` the number of marked keys before each word of 64.
//
// in_grid, out_grid: depth, height and width, each with the extra cell. kernel, stride, padding: along z, y, x.
int64_t aqr_mark(const int64_t* keys, int64_t count, const int64_t* in_grid, const int64_t* out_grid,
                 const int64_t* kernel, const int64_t* stride, const int64_t* padding, uint64_t* bits, int32_t* ranks,
                 int64_t words) {
  for (int64_t site = 0; site < count; ++site)
    for_each_output(keys[site], in_grid, out_grid, kernel, stride, padding,
                    [&](int64_t key, int64_t) { bits[key >> 6] |= uint64_t{1} << (key & 63); });
  int64_t total = 0;
  for (int64_t word = 0; word < words; ++word) {
    ranks[word] = static_cast<int32_t>(total);
    total += __builtin_popcountll(bits[word]);
  }
  return total;
}

// out_keys (found): the marked keys, ascending. table (found, offsets), filled with -1 before: the input of each offset.
void aqr_connect(const int64_t* keys, int64_t count, const int64_t* in_grid, const int64_t* out_grid,
                 const int64_t* kernel, const int64_t* stride, const int64_t* padding, const uint64_t* bits,
                 const int32_t* ranks, int64_t words, int64_t* out_keys, int32_t* table) {
  int64_t index = 0;
  for (int64_t word = 0; word < words; ++word)
    for (uint64_t left = bits[word]; left != 0; left &= left - 1) out_keys[index++] = word * 64 + __builtin_ctzll(left);
  const int64_t offsets = kernel[0] * kernel[1] * kernel[2];
  for (int64_t site = 0; site < count; ++site)
    for_each_output(keys[site], in_grid, out_grid, kernel, stride, padding, [&](int64_t key, int64_t offset) {
      const uint64_t before = bits[key >> 6] & ((uint64_t{1} << (key & 63)) - 1);
      const int64_t output = ranks[key >> 6] + __builtin_popcountll(before);
      table[output * offsets + offset] = static_cast<int32_t>(site);
    });
}

}  // extern "C"
