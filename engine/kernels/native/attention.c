/* Attention over the paged KV cache on a CPU. Built by `build.py`, called through `attention.py`. */

#include "vector.h"
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define KEYS 64       /* keys a tile */
#define MAX_ROWS 12   /* query rows that share a tile's keys and values */
#define MAX_WIDTH 256 /* of a head */

typedef struct {
    int64_t heads, kv_heads, width, block_size, table_stride, query_stride, window, threads, items;
    const int32_t *item_sequence, *item_start; /* of items / kv_heads tiles of queries */
    float scale;
} shape;

INLINE float most(vf x) {
    float m = x[0];
    for (int i = 1; i < LANES; i++) m = x[i] > m ? x[i] : m;
    return m;
}

/* Scores of the keys from `start` on, minus infinity where the row does not see the key. */
INLINE vf mask(vf scores, int64_t start, int64_t low, int64_t high) {
    if (start >= low && start + LANES <= high) return scores;
    const vi lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    int64_t below = low - start, above = high - start;
    vi seen = (lane >= (int32_t)(below > LANES ? LANES : below)) &
              (lane < (int32_t)(above < 0 ? 0 : above > LANES ? LANES : above));
    return pick(seen, scores, splat(-INFINITY));
}

/* One tile's step of the online softmax: scores become weights; what was summed is rescaled. */
INLINE void soften(float *scores, int count, float *top, float *total, float *out, int64_t width) {
    vf peak = *(uvf *)scores;
    for (int k = LANES; k < count; k += LANES) peak = larger(peak, *(uvf *)(scores + k));
    float now = most(peak);
    if (now == -INFINITY && *top == -INFINITY) { /* a tile wholly before this row's window */
        memset(scores, 0, sizeof(float) * count);
        return;
    }
    if (now > *top) {
        float shrink = expf(*top - now);
        *total *= shrink;
        for (int64_t d = 0; d < width; d++) out[d] *= shrink;
        *top = now;
    }
    vf part = splat(0);
    for (int k = 0; k < count; k += LANES) {
        vf s = *(uvf *)(scores + k);
        vf weight = pick(s == -INFINITY, splat(0), exponential(s - *top));
        *(uvf *)(scores + k) = weight;
        part += weight;
    }
    *total += sum(part);
}

/* Lanes of two vectors, so that adding the pair halves the lanes of each sum. */
#define LOW(a, b) __builtin_shuffle(a, b, (vi){0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30})
#define HIGH(a, b) __builtin_shuffle(a, b, (vi){1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31})
#define LOW2(a, b) __builtin_shuffle(a, b, (vi){0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29})
#define HIGH2(a, b) __builtin_shuffle(a, b, (vi){2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31})
#define LOW4(a, b) __builtin_shuffle(a, b, (vi){0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27})
#define HIGH4(a, b) __builtin_shuffle(a, b, (vi){4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31})
#define LOW8(a, b) __builtin_shuffle(a, b, (vi){0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23})
#define HIGH8(a, b) __builtin_shuffle(a, b, (vi){8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31})

/* Four sums of 16 lanes → lanes k, k + 4, k + 8, k + 12 hold four parts of sum k. */
INLINE vf merge4(vf a, vf b, vf c, vf d) {
    vf ab = LOW(a, b) + HIGH(a, b), cd = LOW(c, d) + HIGH(c, d);
    return LOW2(ab, cd) + HIGH2(ab, cd);
}

/* Four such vectors → 16 whole sums, in order. */
INLINE vf finish4(vf a, vf b, vf c, vf d) {
    vf ab = LOW4(a, b) + HIGH4(a, b), cd = LOW4(c, d) + HIGH4(c, d);
    return LOW8(ab, cd) + HIGH8(ab, cd);
}

#define T float
#define FN(name) name##_f32
INLINE void FN(dot)(const int G, const int V, const float *key, const float *q, int64_t width,
                    vf (*sums)[4], int k) {
    for (int g = 0; g < G; g++) sums[g][k] = splat(0);
    for (int v = 0; v < V; v++) {
        vf x = FN(load)(key + v * LANES);
        for (int g = 0; g < G; g++) sums[g][k] += x * FN(load)(q + g * width + v * LANES);
    }
}
#include "attention.h"

#define T uint16_t
#define FN(name) name##_bf16
INLINE void FN(dot)(const int G, const int V, const uint16_t *key, const uint16_t *q,
                    int64_t width, vf (*sums)[4], int k) {
    for (int g = 0; g < G; g++) sums[g][k] = splat(0);
    int v = 0;
#ifdef __AVX512BF16__
    for (; v + 2 <= V; v += 2) {
        __m512bh x = (__m512bh)_mm512_loadu_si512(key + v * LANES);
        for (int g = 0; g < G; g++)
            sums[g][k] = (vf)_mm512_dpbf16_ps(
                (__m512)sums[g][k], x, (__m512bh)_mm512_loadu_si512(q + g * width + v * LANES));
    }
#endif
    for (; v < V; v++) {
        vf x = FN(load)(key + v * LANES);
        for (int g = 0; g < G; g++) sums[g][k] += x * FN(load)(q + g * width + v * LANES);
    }
}
#include "attention.h"
