/* Matrix products of a mini-batch's rows with rows of a table, read and moved where they lie.
 *
 * A product as a library makes it wants its factors side by side: rows of a table are copied
 * together, their gradient is written out, read again and forgotten. Here a row is read through its
 * number, and its gradient is used while it is in registers.
 */
#include "adagrad.h"
#include "tiles.h"

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
    int64_t groups = m ? (c + SLAB - 1) / SLAB : 0, tall = (m + TALL - 1) / TALL;
    int64_t share = tall ? (SLAB + tall - 1) / tall : 0;
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
    for (int64_t j = 0; c == 0 && j < m; j++)
        memset(out + j * out_row, 0, k * sizeof *out);
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
