/* HSTU's attention (Zhai et al. 2024, arXiv 2402.17152, section 3) over sequences that lie one
 * behind another, unpadded: out_i = Σ_{j ≤ i} SiLU(q_i·k_j + p[i − j] + t[bucket_ij]) · v_j / N_i.
 *
 * As in attention.c only the lower triangle is worked out, TALL queries at a time, and the backward
 * pass works it out again, one sequence's at a time. Biases are looked up where the scores are.
 */
#include "triangles.h"

#define SHARES 64 /* of the sequences' gradients of biases: each one's sum has one order */
#define COPIES 8  /* of a bucket's sum, so that one addition need not wait for another */

/* What is added to scores: `back` from the longest distance to the shortest, so that a query's keys
 * meet it in their order, and `time` by bucket; either may be missing. */
struct biases {
    const float *back, *time;
    const uint8_t *buckets;
    int64_t longest;
};

/* buckets of query i of the triangle that begins at `start` */
INLINE const uint8_t *row_of_triangle(const uint8_t *buckets, int64_t start, int64_t i)
{
    return buckets + start + i * (i + 1) / 2;
}

INLINE void add_biases(float *restrict s, struct biases added, int64_t start, int64_t i)
{
    if (added.back) {
        const float *from = added.back + added.longest - 1 - i;
        #pragma omp simd
        for (int64_t j = 0; j <= i; j++)
            s[j] += from[j];
    }
    if (added.time) {
        const uint8_t *bucket = row_of_triangle(added.buckets, start, i);
        const float *time = added.time;
        #pragma omp simd
        for (int64_t j = 0; j <= i; j++)
            s[j] += time[bucket[j]];
    }
}

/* 1 / (1 + e^−x) */
INLINE float sigmoid(float x)
{
    float power = exp_(-fabsf(x)), share = 1 / (1 + power);
    return x < 0 ? power * share : share;
}

INLINE float part_of(int64_t i, float normaliser)
{
    return 1 / (normaliser > 0 ? normaliser : (float)(i + 1));
}

/* Buckets of how long key j lies before query i, for all j ≤ i of a sequence, row behind row;
 * sequence b's begin at starts[b]. |since_i − times_j|, rounded to a float, is told by its exponent
 * and first two binary digits, a cell: cell c's bucket is first[c], and one more from edge[c] on. */
void time_buckets(uint8_t *out, const int64_t *since, const int64_t *times, const int64_t *bounds,
                  const int64_t *starts, int64_t n, const int *first, const float *edge,
                  int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t b = 0; b < n; b++) {
        int64_t begin = bounds[b], length = bounds[b + 1] - begin;
        for (int64_t i = 0; i < length; i++) {
            uint8_t *row = out + starts[b] + i * (i + 1) / 2;
            for (int64_t j = 0; j <= i; j++) {
                float apart = fabsf((float)(since[begin + i] - times[begin + j]));
                uint32_t cell;
                memcpy(&cell, &apart, sizeof cell);
                cell >>= 21;
                row[j] = (uint8_t)(first[cell] + (apart >= edge[cell]));
            }
        }
    }
}

/* Tokens [T, heads · d] in rows of q_row, k_row, v_row floats, of d channels in q and k and d_v in v
 * and out; sequence b's are those from bounds[b] to bounds[b + 1], at most `longest`. normaliser 0:
 * as many as a query sees. spare has (d + TALL) · (longest + SLAB) floats for each thread. */
void pointwise(float *out, const float *q, int64_t q_row, const float *k, int64_t k_row,
               const float *v, int64_t v_row, const int64_t *bounds, const int64_t *starts,
               int64_t n, int64_t longest, int64_t heads, int64_t d, int64_t d_v,
               const float *back, const float *time, const uint8_t *buckets, float normaliser,
               float *spare, int threads)
{
    int64_t most = longest + SLAB;
    struct biases added = {back, time, buckets, longest};
    #pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t task = 0; task < n * heads; task++) {
        int64_t b = task / heads, head = task % heads;
        int64_t begin = bounds[b], length = bounds[b + 1] - begin, pitch = whole(length, LANES);
        float *columns = spare + omp_get_thread_num() * (d + TALL) * most, *w = columns + d * most;
        turn(columns, pitch, k + begin * k_row + head * d, k_row, length, d);
        for (int64_t i = 0; i < length; i += TALL) {
            int64_t rows = least(TALL, length - i), end = i + rows;
            const float *x[TALL];
            EACH (a, TALL) x[a] = q + (begin + least(i + a, length - 1)) * q_row + head * d;
            scores(w, pitch, x, columns, d, end);
            for (int64_t a = 0; a < rows; a++) {
                float *restrict s = w + a * pitch, part = part_of(i + a, normaliser);
                int64_t seen = i + a + 1;
                add_biases(s, added, starts[b], i + a);
                #pragma omp simd
                for (int64_t j = 0; j < seen; j++)
                    s[j] *= sigmoid(s[j]) * part;
                memset(s + seen, 0, (end - seen) * sizeof *s);
            }
            mixed(out + (begin + i) * heads * d_v + head * d_v, heads * d_v, w, pitch,
                  v + begin * v_row + head * d_v, v_row, rows, end, d_v);
        }
    }
}

/* p = SiLU(s)·part where s were scores, and g = the gradient of s where it was that of p, j < seen */
INLINE void derive(float *restrict s, float *restrict g, float part, int64_t seen)
{
    #pragma omp simd
    for (int64_t j = 0; j < seen; j++) {
        float x = s[j], rise = sigmoid(x);
        s[j] = x * rise * part;
        g[j] *= rise * (1 + x * (1 - rise)) * part;
    }
}

/* Where gradients of biases are summed: by distance, the longest first, and by bucket, COPIES of
 * each. */
struct sums {
    float *restrict back, *restrict time;
};

INLINE void sum_biases(struct sums to, const float *restrict g, struct biases added, int64_t start,
                       int64_t i)
{
    if (added.back) {
        float *restrict at = to.back + added.longest - 1 - i;
        #pragma omp simd
        for (int64_t j = 0; j <= i; j++)
            at[j] += g[j];
    }
    if (added.time) {
        const uint8_t *bucket = row_of_triangle(added.buckets, start, i);
        for (int64_t j = 0; j <= i; j++)
            to.time[bucket[j] * COPIES + j % COPIES] += g[j];
    }
}

/* The gradients of q, k and v [T, heads · d], of `back` [longest] and of `time` [kinds] from that of
 * out, `grad`. Tasks are dealt out into SHARES, whose sums are added in their order.
 * spare has (d + d_v + 2 · (longest + TALL)) · (longest + SLAB) floats for each thread,
 * sums SHARES · (longest + COPIES · kinds). */
void pointwise_backward(float *dq, float *dk, float *dv, float *dback, float *dtime,
                        const float *grad, const float *q, int64_t q_row, const float *k,
                        int64_t k_row, const float *v, int64_t v_row, const int64_t *bounds,
                        const int64_t *starts, int64_t n, int64_t longest, int64_t heads,
                        int64_t d, int64_t d_v, const float *back, const float *time,
                        const uint8_t *buckets, int64_t kinds, float normaliser, float *spare,
                        float *sums, int threads)
{
    int64_t most = longest + SLAB, size = heads * d, size_v = heads * d_v;
    int64_t share_size = longest + COPIES * kinds, square = (longest + TALL) * most;
    struct biases added = {back, time, buckets, longest};
    memset(sums, 0, SHARES * share_size * sizeof *sums);
    #pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t share = 0; share < SHARES; share++)
        for (int64_t task = share; task < n * heads; task += SHARES) {
            int64_t b = task / heads, head = task % heads;
            int64_t begin = bounds[b], length = bounds[b + 1] - begin;
            int64_t pitch = whole(length, LANES), at = head * d, at_v = head * d_v;
            struct sums to = {sums + share * share_size, sums + share * share_size + longest};
            float *keys = spare + omp_get_thread_num() * ((d + d_v) * most + 2 * square);
            float *values = keys + d * most, *p = values + d_v * most, *g = p + square;
            const float *dout = grad + begin * size_v + at_v;
            turn(keys, pitch, k + begin * k_row + at, k_row, length, d);
            turn(values, pitch, v + begin * v_row + at_v, v_row, length, d_v);
            for (int64_t i = 0; i < length; i += TALL) {
                int64_t rows = least(TALL, length - i), end = i + rows;
                const float *x[TALL], *y[TALL];
                EACH (a, TALL) {
                    x[a] = q + (begin + least(i + a, length - 1)) * q_row + at;
                    y[a] = dout + least(i + a, length - 1) * size_v;
                }
                scores(p + i * pitch, pitch, x, keys, d, end);
                scores(g + i * pitch, pitch, y, values, d_v, end);
                for (int64_t a = 0; a < rows; a++) {
                    float *s = p + (i + a) * pitch, *t = g + (i + a) * pitch;
                    int64_t seen = i + a + 1;
                    add_biases(s, added, starts[b], i + a);
                    derive(s, t, part_of(i + a, normaliser), seen);
                    sum_biases(to, t, added, starts[b], i + a);
                    memset(s + seen, 0, (end - seen) * sizeof *s);
                    memset(t + seen, 0, (end - seen) * sizeof *t);
                }
                mixed(dq + (begin + i) * size + at, size, g + i * pitch, pitch,
                      k + begin * k_row + at, k_row, rows, end, d);
            }
            gathered(dk + begin * size + at, size, g, pitch, q + begin * q_row + at, q_row,
                     length, d);
            gathered(dv + begin * size_v + at_v, size_v, p, pitch, dout, size_v, length, d_v);
        }
    for (int64_t j = 0; back && j < longest; j++) {
        double sum = 0;
        for (int64_t share = 0; share < SHARES; share++)
            sum += sums[share * share_size + j];
        dback[j] = (float)sum;
    }
    for (int64_t j = 0; time && j < kinds; j++) {
        double sum = 0;
        for (int64_t share = 0; share < SHARES; share++)
            for (int64_t copy = 0; copy < COPIES; copy++)
                sum += sums[share * share_size + longest + j * COPIES + copy];
        dtime[j] = (float)sum;
    }
}
