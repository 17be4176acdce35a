/* Attention over the paged cache for one element type; included by attention.c once a type.
 *
 * Expects: T (the element type), FN(name) (adds the type to a name), load(const T *) -> vf,
 * store(float) -> T.
 *
 * One work item is one key head of a few neighbouring queries of one sequence: their rows share
 * every key and value that is read. Softmax is online (Milakov and Gimelshein 2018), over tiles of
 * KEYS keys, so that scores never leave the first-level cache.
 */

typedef struct {
    const T *keys, *values;      /* this key head's, of the first block */
    const int32_t *table;        /* the sequence's blocks */
    int64_t block_size, block_stride, token_stride;
} FN(head);

INLINE const T *FN(at)(const FN(head) *h, const T *base, int64_t position) {
    return base + h->table[position / h->block_size] * h->block_stride +
           position % h->block_size * h->token_stride;
}

/* Dot products of G rows with LANES keys: scores[g] gets one lane a key. */
INLINE void FN(dots)(const int G, const int V, const T **key, const T *q, int64_t width, vf *scores) {
    vf quarter[G][4];
    for (int four = 0; four < 4; four++) {
        vf sums[G][4];
        for (int k = 0; k < 4; k++) FN(dot)(G, V, key[four * 4 + k], q, width, sums, k);
        for (int g = 0; g < G; g++)
            quarter[g][four] = merge4(sums[g][0], sums[g][1], sums[g][2], sums[g][3]);
    }
    for (int g = 0; g < G; g++)
        scores[g] = finish4(quarter[g][0], quarter[g][1], quarter[g][2], quarter[g][3]);
}

/* Add the tile's values, weighted, to G rows of V vectors. */
INLINE void FN(gather)(const int G, const int V, const T **value, int count, const float *weights,
                       float *out, int64_t width) {
    vf sums[G][V];
    for (int g = 0; g < G; g++)
        for (int v = 0; v < V; v++) sums[g][v] = *(const uvf *)(out + g * width + v * LANES);
    for (int k = 0; k < count; k++)
        for (int v = 0; v < V; v++) {
            vf x = FN(load)(value[k] + v * LANES);
            for (int g = 0; g < G; g++) sums[g][v] += x * weights[g * KEYS + k];
        }
    for (int g = 0; g < G; g++)
        for (int v = 0; v < V; v++) *(uvf *)(out + g * width + v * LANES) = sums[g][v];
}

/* `rows` query rows (T [rows][width]) over keys [first, last); row r sees [low[r], high[r]). */
INLINE void FN(attend)(const int G, const int V, const FN(head) *h, const T *q, int rows,
                       int64_t width, float scale, const int64_t *low, const int64_t *high,
                       int64_t first, int64_t last, float *out) {
    float top[MAX_ROWS], total[MAX_ROWS], weights[MAX_ROWS * KEYS];
    const T *key[KEYS], *value[KEYS];
    for (int r = 0; r < rows; r++) top[r] = -INFINITY, total[r] = 0;
    memset(out, 0, sizeof(float) * rows * width);
    for (int64_t start = first; start < last; start += KEYS) {
        int count = last - start < KEYS ? last - start : KEYS;
        int lanes = (count + LANES - 1) / LANES * LANES;
        for (int k = 0; k < lanes; k++) { /* past the end the last key stands in, masked below */
            int64_t position = start + (k < count ? k : count - 1);
            key[k] = FN(at)(h, h->keys, position);
            value[k] = FN(at)(h, h->values, position);
        }
        for (int r = 0; r < rows; r += G)
            for (int k = 0; k < lanes; k += LANES) {
                vf scores[G];
                FN(dots)(G, V, key + k, q + r * width, width, scores);
                for (int g = 0; g < G; g++)
                    *(uvf *)(weights + (r + g) * KEYS + k) =
                        mask(scores[g] * scale, start + k, low[r + g], high[r + g]);
            }
        for (int r = 0; r < rows; r++)
            soften(weights + r * KEYS, lanes, &top[r], &total[r], out + r * width, width);
        for (int r = 0; r < rows; r += G)
            FN(gather)(G, V, value, count, weights + r * KEYS, out + r * width, width);
    }
    for (int r = 0; r < rows; r++)
        for (int64_t d = 0; d < width; d++) out[r * width + d] /= total[r];
}

/* The head widths of most models get code of their own; any other multiple of LANES runs slower. */
INLINE void FN(dispatch)(const FN(head) *h, const T *q, int rows, int64_t width, float scale,
                         const int64_t *low, const int64_t *high, int64_t first, int64_t last,
                         float *out) {
#define CASE(G, V) FN(attend)(G, V, h, q, rows, width, scale, low, high, first, last, out)
#define WIDTHS(G)                             \
    switch (width / LANES) {                  \
    case 4: CASE(G, 4); break;                \
    case 8: CASE(G, 8); break;                \
    default: CASE(G, (int)(width / LANES));   \
    }
    if (rows % 3 == 0) WIDTHS(3) else if (rows % 2 == 0) WIDTHS(2) else WIDTHS(1)
#undef WIDTHS
#undef CASE
}

void FN(paged_attention)(const T *queries, const T *keys, const T *values, T *out,
                         const int32_t *query_start, const int32_t *context_lens,
                         const int32_t *tables, const shape *s) {
    int64_t group = s->heads / s->kv_heads, width = s->width;
    int64_t tile = group >= MAX_ROWS ? 1 : MAX_ROWS / group;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)s->threads)
    for (int64_t item = 0; item < s->items; item++) {
        int64_t kv = item % s->kv_heads, rest = item / s->kv_heads;
        int64_t sequence = s->item_sequence[rest], begin = s->item_start[rest];
        int64_t end = begin + tile < query_start[sequence + 1] ? begin + tile
                                                               : query_start[sequence + 1];
        int64_t before = context_lens[sequence] - query_start[sequence + 1]; /* + t: its position */
        FN(head) h = {keys + kv * width, values + kv * width, tables + sequence * s->table_stride,
                      s->block_size, s->block_size * s->kv_heads * width, s->kv_heads * width};
        T q[MAX_ROWS * MAX_WIDTH];
        float o[MAX_ROWS * MAX_WIDTH];
        int64_t low[MAX_ROWS], high[MAX_ROWS], first = INT64_MAX;
        for (int64_t part = 0; part < group; part += MAX_ROWS) {
            int64_t heads = group - part < MAX_ROWS ? group - part : MAX_ROWS;
            int rows = 0;
            for (int64_t t = begin; t < end; t++)
                for (int64_t g = 0; g < heads; g++, rows++) {
                    memcpy(q + rows * width,
                           queries + t * s->query_stride + (kv * group + part + g) * width,
                           sizeof(T) * width);
                    high[rows] = before + t + 1;
                    low[rows] = s->window && high[rows] > s->window ? high[rows] - s->window : 0;
                    if (low[rows] < first) first = low[rows];
                }
            FN(dispatch)(&h, q, rows, width, s->scale, low, high, first, before + end, o);
            rows = 0;
            for (int64_t t = begin; t < end; t++)
                for (int64_t g = 0; g < heads; g++, rows++)
                    for (int64_t d = 0; d < width; d++)
                        out[(t * s->heads + kv * group + part + g) * width + d] =
                            FN(store)(o[rows * width + d]);
        }
    }
}

#undef T
#undef FN
