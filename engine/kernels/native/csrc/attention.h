/* Attention of a whole step over the paged cache.
 *
 * A step is cut into segments. A segment is a range of one block table and the tokens that see it.
 * Sequences that begin with the same blocks share a segment for these blocks. So a common prefix is
 * read once, not once for each sequence (cascade attention; Hydragen, Juravsky et al. 2024). The block
 * tables form a tree, and its branches share segments likewise. Long ranges are split, so that all
 * threads have work (FlashDecoding, Dao et al. 2023). Every segment gives each of its tokens a partial
 * result, and `merge` joins a token's partial results by their log-sum-exps. */

#ifndef TIDEMILL_ATTENTION_H
#define TIDEMILL_ATTENTION_H

#include "attend.h"
#include "team.h"

typedef struct {
    int64_t tokens, sequences, stride; /* stride: int32s between block tables */
    const int32_t *query_start;        /* [sequences + 1]: each one's first token */
    const int32_t *contexts;           /* [sequences]: keys, this step's tokens included */
    const int32_t *slots;              /* [sequences]: each one's row of `tables` */
    const int32_t *tables;
    const int32_t *token_ids, *positions, *owners; /* [tokens] */
} step;

typedef struct {
    const int32_t *table;
    int64_t first, last;   /* tiles */
    int64_t member, count; /* its tokens: members[member .. member + count) */
} segment;

/* One step's segments, for layers with the same window. Its arrays grow and are kept between steps. */
typedef struct {
    int64_t window; /* keys that a token sees, itself included; 0: all */
    segment *segments;
    int64_t num_segments, room;
    int32_t *members; /* tokens, segment by segment; each has a partial result at the same index */
    int64_t num_members, member_room;
    int32_t *partials,
        *partial_start; /* token t: partials[partial_start[t] .. partial_start[t + 1]) */
    int32_t *order,
        *common; /* sequences with one token, by block table; tiles shared with the one before */
    int64_t order_room, token_room, partials_room;
    float *out, *top, *total; /* partial results: [member][head][width], and twice [member][head] */
    int64_t result_room;
    int32_t failed; /* whether memory ran out */
} segment_list;

segment_list *segments_new(int64_t window);
void segments_free(segment_list *list);

/* Cut a step into segments. Returns 0, or -1 if there is no memory.
 *
 * picked [count]: if not NULL, only the last token of each of these sequences needs attention.
 * share: whether sequences share segments. */
int segments_build(segment_list *list, const step *s, const cache *c, const int32_t *picked,
                   int64_t count, int64_t share, int64_t threads);

/* Compute the partial results. A stage of a region: called by its threads, each of which returns when all
 * of it is computed. */
void attend_step(const segment_list *list, const step *s, const cache *c, const uint8_t *queries,
                 team *all, int stage);

/* Join one token's partial results to its output [heads * width]. */
void merge(const segment_list *list, const cache *c, int64_t token, float *out);

#endif
