/* Matrix products of a mini-batch's rows with rows of a table, read and moved where they lie.
 *
 * A product as a library makes it wants its factors side by side: rows of a table are copied
 * together, their gradient is written out, read again and forgotten. Here a row is read through its
 * number, and its gradient is used while it is in registers. Tiles are as large as the registers
 * hold; the last one begins earlier, and what is worked out twice is written once. Rows have LANES
 * floats at least.
 *
 * Every sum runs in the same order however many rows or threads there are.
 */
#include <stdint.h>
#include <string.h>
#include "adagrad.h"

#if defined(__AVX512F__)
#define LANES 16
#define TALL 8 /* a tile's rows … */
#elif defined(__AVX__)
#define LANES 8
#define TALL 4
#else
#define LANES 4
#define TALL 4
#endif
#define ACROSS 3 /* … by vectors of columns */
#define SLAB (ACROSS * LANES)
#define NEAR 128 /* rows that are gone over again and again while they are in the cache */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float half __attribute__((vector_size(2 * LANES)));
/* as it lies in memory: at any address */
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)
#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const float *at) { return *(const loose *)at; }

/* n floats, zeros behind them */
INLINE vec load_first(const float *at, int64_t n)
{
    float all[LANES] = {0};
    memcpy(all, at, n * sizeof(float));
    return load(all);
}

/* the last n floats of a row that ends at end, zeros before them */
INLINE vec load_last(const float *end, int64_t n)
{
    float all[LANES] = {0};
    memcpy(all + LANES - n, end - n, n * sizeof(float));
    return load(all);
}

/* Lanes of a and b: those without the bit w in their number, or (from w on) those with it; runs of w
 * in turns from a and b. */
#if defined(__clang__) || __GNUC__ >= 12
#define MIX(a, b, w, from) __builtin_shufflevector(a, b, LIST_##w(from))
#else
typedef int32_t lanes __attribute__((vector_size(4 * LANES)));
#define MIX(a, b, w, from) __builtin_shuffle(a, b, (lanes){LIST_##w(from)})
#endif
#define RUN_1(o) (o)
#define RUN_2(o) (o), (o) + 1
#define RUN_4(o) RUN_2(o), RUN_2((o) + 2)
#define RUN_8(o) RUN_4(o), RUN_4((o) + 4)
#define TURN(w, o) RUN_##w(o), RUN_##w((o) + LANES)
#define TURNS_2(w, o) TURN(w, o), TURN(w, (o) + 2 * w)
#define TURNS_4(w, o) TURNS_2(w, o), TURNS_2(w, (o) + 4 * w)
#if LANES == 16
#define LIST_8(o) TURN(8, o)
#define LIST_4(o) TURNS_2(4, o)
#define LIST_2(o) TURNS_4(2, o)
#define LIST_1(o) TURNS_4(1, o), TURNS_4(1, (o) + 8)
#elif LANES == 8
#define LIST_4(o) TURN(4, o)
#define LIST_2(o) TURNS_2(2, o)
#define LIST_1(o) TURNS_4(1, o)
#else
#define LIST_2(o) TURN(2, o)
#define LIST_1(o) TURNS_2(1, o)
#endif
#define SWAP(w)                                                                                   \
    EACH (i, LANES)                                                                               \
        if (!(i & w)) {                                                                           \
            vec low = MIX(v[i], v[i + w], w, 0), high = MIX(v[i], v[i + w], w, w);                \
            v[i] = low;                                                                           \
            v[i + w] = high;                                                                      \
        }

/* rows become columns */
INLINE void transpose(vec v[LANES])
{
#if LANES >= 16
    SWAP(8)
#endif
#if LANES >= 8
    SWAP(4)
#endif
    SWAP(2)
    SWAP(1)
}

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE int64_t row_of(const int64_t *rows, int64_t i) { return rows ? rows[i] : i; }

/* Columns [at + skip, at + n·LANES) of a row of k: up to ACROSS vectors, and last, where LANES
 * does not divide k, one that begins before the rest. */
struct slab {
    int64_t at;
    int n, skip;
};

INLINE int64_t slabs(int64_t k)
{
    return (k / LANES + ACROSS - 1) / ACROSS + (k % LANES != 0);
}

INLINE struct slab slab(int64_t k, int64_t number)
{
    int64_t at = number * ACROSS * LANES, left = k / LANES - number * ACROSS;
    if (left > 0)
        return (struct slab){at, left < ACROSS ? (int)left : ACROSS, 0};
    return (struct slab){k - LANES, 1, (int)(LANES - k % LANES)};
}

/* sum[a, b] += Σ_i d[a][i] · row rows[i] of w, for TALL rows and n vectors of columns */
INLINE void weighed_tile(vec *sum, const float *const *d, const float *w, const int64_t *rows,
                         int64_t k, int64_t begin, int64_t end, int n)
{
    for (int64_t i = begin; i < end; i++) {
        const float *at = w + row_of(rows, i) * k;
        vec v[ACROSS];
        EACH (b, n) v[b] = load(at + b * LANES);
        EACH (a, TALL) EACH (b, n) sum[a * ACROSS + b] += d[a][i] * v[b];
    }
}

/* Columns [l, l + width) of SLAB rows from i on, made rows: panel[q, b] is column l + q of row i + b.
 * Beyond the last row, c − 1, it is repeated. */
INLINE void make_panel(float *panel, const float *table, const int64_t *rows, int64_t i, int64_t c,
                       int64_t k, int64_t l, int64_t width)
{
    for (int64_t b = 0; b < SLAB; b += LANES) {
        const float *at[LANES];
        EACH (r, LANES) at[r] = table + row_of(rows, least(i + b + r, c - 1)) * k + l;
        for (int64_t q = 0; q < width; q += LANES) {
            vec v[LANES];
            if (q + LANES <= width)
                EACH (r, LANES) v[r] = load(at[r] + q);
            else
                EACH (r, LANES) v[r] = load_first(at[r] + q, width - q);
            transpose(v);
            EACH (r, LANES) *(loose *)(panel + (q + r) * SLAB + b) = v[r];
        }
    }
}

/* out[j, i] = x[j] · table[rows[i]] + bias[i] */
void dots(float *out, int64_t out_row, const float *x, int64_t x_row, const float *table,
          const int64_t *rows, const float *bias, int64_t m, int64_t c, int64_t k, int threads)
{
    int64_t groups = (c + SLAB - 1) / SLAB, tall = (m + TALL - 1) / TALL;
    int64_t share = (SLAB + tall - 1) / tall;
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t g = 0; g < groups; g++) {
        int64_t i = g * SLAB, n = least(SLAB, c - i);
        float panel[NEAR * SLAB], first[SLAB] = {0};
        if (bias)
            memcpy(first, bias + i, n * sizeof *bias);
        for (int64_t l = 0; l < k; l += NEAR) {
            int64_t width = least(NEAR, k - l), end = l + NEAR >= k;
            make_panel(panel, table, rows, i, c, k, l, width);
            for (int64_t j = 0; j < m; j += TALL) {
                const float *p[TALL];
                float *to[TALL];
                vec sum[TALL * ACROSS];
                /* what the next panel is made of is on its way */
                for (int64_t b = j / TALL * share; b < least(SLAB, (j / TALL + 1) * share); b++) {
                    int64_t row = row_of(rows, least(i + b + (end ? SLAB : 0), c - 1));
                    const float *next = table + row * k + (end ? 0 : l + NEAR);
                    for (int64_t q = 0; q < least(NEAR, k - (end ? 0 : l + NEAR)); q += 16)
                        __builtin_prefetch(next + q, 1, 3);
                }
                EACH (a, TALL) {
                    p[a] = x + least(j + a, m - 1) * x_row + l;
                    to[a] = out + least(j + a, m - 1) * out_row + i;
                }
                if (l == 0 || n == SLAB)
                    EACH (a, TALL) EACH (b, ACROSS)
                        sum[a * ACROSS + b] = load((l ? to[a] : first) + b * LANES);
                else
                    for (int64_t a = 0; a < TALL; a++)
                        memcpy(sum + a * ACROSS, to[a], n * sizeof *out);
                weighed_tile(sum, p, panel, NULL, SLAB, 0, width, ACROSS);
                if (n == SLAB && j + TALL <= m)
                    EACH (a, TALL) memcpy(to[a], sum + a * ACROSS, SLAB * sizeof *out);
                else
                    for (int64_t a = 0; a < least(TALL, m - j); a++)
                        memcpy(to[a], sum + a * ACROSS, n * sizeof *out);
            }
        }
    }
}

/* out[j] = Σ_i d[j, i] · table[rows[i]] */
void weighed(float *out, int64_t out_row, const float *d, int64_t d_row, const float *table,
             const int64_t *rows, int64_t m, int64_t c, int64_t k, int threads)
{
    int64_t tall = (m + TALL - 1) / TALL, tiles = slabs(k) * tall;
    #pragma omp parallel num_threads(threads)
    for (int64_t near = 0; near < c; near += NEAR) {
        int64_t end = least(near + NEAR, c);
        /* of every block of rows a thread has the same tiles: nobody waits */
        #pragma omp for schedule(static) nowait
        for (int64_t t = 0; t < tiles; t++) {
            struct slab s = slab(k, t / tall);
            int64_t j = t % tall * TALL;
            const float *p[TALL], *w = table + s.at;
            float *to[TALL];
            vec sum[TALL * ACROSS];
            EACH (a, TALL) {
                p[a] = d + least(j + a, m - 1) * d_row;
                to[a] = out + least(j + a, m - 1) * out_row + s.at;
                EACH (b, ACROSS)
                    sum[a * ACROSS + b] = near == 0 || b >= s.n ? (vec){0}
                                          : s.skip ? load_last(to[a] + LANES, LANES - s.skip)
                                                   : load(to[a] + b * LANES);
            }
            if (s.n == 3)
                weighed_tile(sum, p, w, rows, k, near, end, 3);
            else if (s.n == 2)
                weighed_tile(sum, p, w, rows, k, near, end, 2);
            else
                weighed_tile(sum, p, w, rows, k, near, end, 1);
            for (int64_t a = 0; a < least(TALL, m - j); a++)
                memcpy(to[a] + s.skip, (float *)(sum + a * ACROSS) + s.skip,
                       (s.n * LANES - s.skip) * sizeof *out);
        }
    }
}

/* sum[a, b] += Σ_j d[j, column[a]] · x[j], for n vectors of columns of x */
INLINE void gradient_tile(vec *sum, const float *d, int64_t d_row, const int64_t *column,
                          const float *x, int64_t x_row, int64_t m, int n)
{
    for (int64_t j = 0; j < m; j++) {
        vec v[ACROSS];
        EACH (b, n) v[b] = load(x + j * x_row + b * LANES);
        EACH (a, TALL) EACH (b, n) sum[a * ACROSS + b] += d[j * d_row + column[a]] * v[b];
    }
}

/* Moves row rows[i] of the table weight, i < n, by its gradient
 *
 *     Σ_j d[j, i] · x[j]   (if i < c)   +   Σ of read[j] over all j with inputs[j] = i.
 *
 * links has n + n_inputs numbers to spare. */
void learn(float *weight, float *squares, float *velocity, const int64_t *rows, int64_t n,
           const float *d, int64_t d_row, const float *x, int64_t x_row, int64_t m, int64_t c,
           const int64_t *inputs, const float *read, int64_t n_inputs, int64_t *links, int64_t k,
           float lr, float mu, float keep, int threads)
{
    int64_t groups = (n + TALL - 1) / TALL, *first = links, *then = links + n;
    if (inputs) {
        for (int64_t i = 0; i < n; i++)
            first[i] = -1;
        for (int64_t j = n_inputs - 1; j >= 0; j--) {
            then[j] = first[inputs[j]];
            first[inputs[j]] = j;
        }
    }
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t group = 0; group < groups; group++) {
        int64_t i = group * TALL, column[TALL], row[TALL], next[TALL];
        EACH (a, TALL) {
            column[a] = least(i + a, c - 1);
            row[a] = row_of(rows, least(i + a, n - 1)) * k;
            next[a] = row_of(rows, least(i + a + TALL, n - 1)) * k;
        }
        for (int64_t number = 0; number < slabs(k); number++) {
            struct slab part = slab(k, number);
            vec sum[TALL * ACROSS];
            EACH (t, TALL * ACROSS) sum[t] = (vec){0};
            if (i < c) {
                if (part.n == 3)
                    gradient_tile(sum, d, d_row, column, x + part.at, x_row, m, 3);
                else if (part.n == 2)
                    gradient_tile(sum, d, d_row, column, x + part.at, x_row, m, 2);
                else
                    gradient_tile(sum, d, d_row, column, x + part.at, x_row, m, 1);
            }
            for (int64_t a = 0; a < least(TALL, n - i); a++) {
                float g[ACROSS * LANES];
                int64_t at = row[a] + part.at, width = part.n * LANES;
                if (i + a < c)
                    memcpy(g, sum + a * ACROSS, sizeof g);
                else
                    memset(g, 0, sizeof g);
                for (int64_t j = inputs ? first[i + a] : -1; j >= 0; j = then[j])
                    for (int64_t l = part.skip; l < width; l++)
                        g[l] += read[j * k + part.at + l];
                for (int64_t l = 0; l < width; l += LANES) {
                    __builtin_prefetch(weight + next[a] + part.at + l, 1, 3);
                    __builtin_prefetch(squares + next[a] + part.at + l, 1, 3);
                    if (velocity)
                        __builtin_prefetch(velocity + next[a] + part.at + l, 1, 3);
                }
                at += part.skip;
                if (width == ACROSS * LANES && velocity)
                    move(weight + at, squares + at, velocity + at, g, ACROSS * LANES, lr, mu,
                            keep);
                else if (width == ACROSS * LANES)
                    move(weight + at, squares + at, NULL, g, ACROSS * LANES, lr, mu, keep);
                else
                    move(weight + at, squares + at, velocity ? velocity + at : NULL,
                            g + part.skip, width - part.skip, lr, mu, keep);
            }
        }
    }
}

/* how many floats a row must have at least */
int shortest_row(void) { return LANES; }
