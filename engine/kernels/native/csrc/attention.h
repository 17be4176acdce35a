/* Attention of a whole step over the paged cache: who reads which keys, and the reading.
 *
 * A step's tokens are cut into segments: some tokens and a range of one block table that all of them
 * see. Sequences that begin with the same blocks share a segment for them, so that a common prefix is
 * read once and not once a sequence (cascade attention; Hydragen, Juravsky et al. 2024), on every
 * level of the tree that their tables form. Long ranges are split for the threads' sake (FlashDecoding,
 * Dao et al. 2023). Each token gets a partial result from every segment that it is in, and `merge`
 * joins them by their log-sum-exps. */

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
    int64_t first, last;   /* areas */
    int64_t member, count; /* its tokens: members[member .. member + count) */
} segment;

/* One step's segments, for layers with the same window. Grows, and is kept from step to step. */
typedef struct {
    int64_t window; /* keys that a token sees, itself included; 0: all */
    segment *segments;
    int64_t num_segments, room;
    int32_t *members; /* tokens; a member's place is also that of its partial result */
    int64_t num_members, member_room;
    int32_t *parts, *part_start; /* places of each token's partial results: [tokens + 1] starts */
    int32_t *order, *common;     /* of sequences with one token, sorted by table; areas in common */
    int64_t order_room, token_room, part_room;
    float *out, *top, *total; /* partial results [member][head]([width]) */
    int64_t partial_room;
    int32_t failed; /* there was no memory */
} plan;

plan *plan_new(int64_t window);
void plan_free(plan *p);

/* Cut a step into segments. 0, or -1 where there is no memory.
 *
 * picked [count]: sequences of which only the last token looks at the keys, and no others do; NULL where
 * all tokens do. share: whether sequences share segments. */
int plan_step(plan *p, const step *s, const cache *c, const int32_t *picked, int64_t count,
              int64_t share, int64_t threads);

/* All threads of a region: fill the partial results. */
void attend_step(const plan *p, const step *s, const cache *c, const uint8_t *queries, team *all,
                 int stage);

/* One token's result [heads * width], from its partial ones. */
void merge(const plan *p, const cache *c, int64_t token, float *out);

#endif
