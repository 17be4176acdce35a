/* Rows to bytes, and the product, for one element type; included by int8.c once a type.
 *
 * Expects: T (the element type), FN(name) (adds the type to a name), and what int8.c defines.
 */

/* Each row's least and greatest value (and zero) span its 256 steps. */
void FN(quantise_rows)(const T *x, int64_t stride, uint8_t *out, float *scales, int32_t *zeros,
                       int64_t tokens, int64_t width, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads((int)threads) if (tokens * width > 16384)
    for (int64_t t = 0; t < tokens; t++) {
        const T *row = x + t * stride;
        vf low = splat(0), high = splat(0);
        for (int64_t d = 0; d < width; d += LANES) {
            vf v = FN(load)(row + d);
            low = pick(v < low, v, low);
            high = larger(v, high);
        }
        float least = 0, most = 0;
        for (int i = 0; i < LANES; i++) {
            least = low[i] < least ? low[i] : least;
            most = high[i] > most ? high[i] : most;
        }
        float scale = (most - least) / 255, inverse = scale > 0 ? 1 / scale : 0;
        float zero = rintf(-least * inverse);
        for (int64_t d = 0; d < width; d += LANES) {
            vf v = FN(load)(row + d) * inverse + (zero + 0.5f);
            v = pick(v < 0, splat(0), pick(v > 255, splat(255), v));
            vu q = __builtin_convertvector(v, vu);
            typedef uint8_t vb __attribute__((vector_size(16)));
            vb bytes = __builtin_convertvector(q, vb);
            memcpy(out + t * width + d, &bytes, LANES);
        }
        scales[t] = scale;
        zeros[t] = (int32_t)zero;
    }
}

/* The tile's sums, scaled, to where they belong; the last panel may stand out over the edge. */
static __attribute__((noinline)) void FN(put_tile)(int rows, const product *p, int64_t t, int64_t n,
                                                   float line[ROWS][PANEL]) {
    int64_t count = p->outputs - n < PANEL ? p->outputs - n : PANEL;
    for (int i = 0; i < rows; i++) {
        T *to = (T *)p->out + (t + i) * p->outputs + n;
        int64_t d = 0;
        for (; d + LANES <= count; d += LANES) FN(put)(to + d, load_f32(line[i] + d));
        for (; d < count; d++) to[d] = FN(store)(line[i][d]);
    }
}

INLINE void FN(tile)(const int rows, const product *p, int64_t t, int64_t panel) {
    vi acc[ROWS][4];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < 4; j++) acc[i][j] = (vi){};
    const uint8_t *x = p->rows + t * p->inputs;
    const int8_t *w = p->panels + panel * PANEL * p->inputs;
    for (int64_t k = 0; k < p->inputs; k += 4, w += 4 * PANEL)
        UNROLL for (int i = 0; i < rows; i++) {
            int32_t four;
            memcpy(&four, x + i * p->inputs + k, 4);
            UNROLL for (int j = 0; j < 4; j++)
                acc[i][j] = dot4(acc[i][j], four, w + 64 * j);
        }
    float line[ROWS][PANEL];
    UNROLL for (int j = 0; j < 4; j++) {
        int64_t n = panel * PANEL + LANES * j;
        vi sums;
        memcpy(&sums, p->weight_sums + n, sizeof sums);
        vf scale = load_f32(p->weight_scales + n), bias = load_f32(p->bias + n);
        UNROLL for (int i = 0; i < rows; i++) {
            vi exact = acc[i][j] - p->zeros[t + i] * sums;
            vf y = __builtin_convertvector(exact, vf) * (scale * p->scales[t + i]) + bias;
            put_f32(line[i] + LANES * j, y);
        }
    }
    FN(put_tile)(rows, p, t, panel * PANEL, line);
}

/* Functions of their own: inlined into one, the compiler keeps the sums in memory. */
#define TILE(rows)                                                                              \
    static __attribute__((noinline)) void FN(tile##rows)(const product *p, int64_t t, int64_t n) { \
        FN(tile)(rows, p, t, n);                                                                \
    }
TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#undef TILE

void FN(int8_linear)(const product *p, int64_t threads) {
    static void (*const tiles[])(const product *, int64_t, int64_t) = {
        FN(tile1), FN(tile2), FN(tile3), FN(tile4), FN(tile5), FN(tile6)};
    int64_t panels = (p->outputs + PANEL - 1) / PANEL;
    if (p->tokens == 0) return;
    /* As many blocks of rows as keep the panels in the cache, and the threads evenly busy. */
    int64_t blocks = (p->tokens + BLOCK - 1) / BLOCK;
    while (panels * blocks % threads && p->tokens / blocks >= 2 * ROWS) blocks++;
    int64_t block = ((p->tokens + blocks - 1) / blocks + ROWS - 1) / ROWS * ROWS;
    blocks = (p->tokens + block - 1) / block;
#pragma omp parallel for schedule(static) num_threads((int)threads)
    for (int64_t unit = 0; unit < panels * blocks; unit++) {
        int64_t panel = unit / blocks, t = unit % blocks * block;
        int64_t end = t + block < p->tokens ? t + block : p->tokens;
        for (; t < end; t += ROWS) {
            int64_t rows = end - t < ROWS ? end - t : ROWS;
            tiles[rows - 1](p, t, panel);
        }
    }
}

#undef T
#undef FN
