/* Products of 8-bit rows and 8-bit weights. Called through `int8.py`.
 *
 * A row x of activations is kept as unsigned bytes q with x = scale (q - zero), and an output channel
 * of weights as signed bytes w with its own scale. So
 *
 *   sum_k x_k w_k = scale_x scale_w (sum_k q_k w_k - zero sum_k w_k),
 *
 * where the last sum is known beforehand. Weights lie in panels of 64 channels, four inputs together,
 * which is how VNNI's dot product takes them: [panel][input / 4][channel][4]. */

#if defined(__GNUC__) && !defined(__clang__)
/* With it gcc 12 keeps the sums of a tile in memory and not in registers: half the speed. */
#pragma GCC optimize("no-tree-pre")
#endif

#include "vector.h"

#if defined(__AVX512VNNI__)
#include <immintrin.h>
#endif

#define PANEL 64   /* output channels of a panel: four registers of sums a row */
#define ROWS 6     /* rows of a tile: 6 x 4 sums, 4 weights and 1 input are 29 of 32 registers */
#define BLOCK 96   /* rows that share a panel while it is in the cache */
#define UNROLL _Pragma("GCC unroll 8")

typedef struct {
    const uint8_t *rows;  /* [tokens, inputs] */
    const float *scales;  /* [tokens] */
    const int32_t *zeros; /* [tokens] */
    const int8_t *panels;
    const float *weight_scales; /* [outputs], padded to whole panels as the panels are */
    const int32_t *weight_sums; /* [outputs], likewise */
    const float *bias;          /* [outputs], likewise */
    void *out;                  /* [tokens, outputs] */
    int64_t tokens, inputs, outputs;
} product;

/* acc += four products a lane of one row's four inputs and 16 channels' weights. */
INLINE vi dot4(vi acc, int32_t four, const int8_t *weights) {
#if defined(__AVX512VNNI__)
    return (vi)_mm512_dpbusd_epi32((__m512i)acc, _mm512_set1_epi32(four),
                                   _mm512_loadu_si512(weights));
#else
    uint8_t x[4];
    memcpy(x, &four, 4);
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < 4; i++) acc[lane] += x[i] * weights[4 * lane + i];
    return acc;
#endif
}

#define T float
#define FN(name) name##_f32
#include "int8.h"

#define T uint16_t
#define FN(name) name##_bf16
#include "int8.h"
