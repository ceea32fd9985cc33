/* Which items of a catalogue score as high as a target, where rough scores say which may. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define CHUNK 64 /* rough scores that are passed over together */

#if defined(__clang__)
#define ALONE __attribute__((noinline))
#else
#define ALONE __attribute__((noinline, noclone))
#endif

/* One for all who ask: equal factors give equal scores. */
ALONE static float score(const float *restrict x, const float *restrict w, int64_t d, float bias)
{
    float sum = 0;
    #pragma omp simd reduction(+:sum)
    for (int64_t l = 0; l < d; l++)
        sum += x[l] * w[l];
    return sum + bias;
}

void pair_scores(float *out, const float *vectors, const float *table, const float *bias,
                 const int64_t *items, int64_t m, int64_t d, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < m; i++)
        out[i] = score(vectors + i * d, table + items[i] * d, d, bias[items[i]]);
}

/* bfloat16 is the upper half of a float */
static inline float wide(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline int reached(const void *rough, int halves, int64_t begin, int64_t n, float least)
{
    float top = -INFINITY;
    if (halves) {
        const uint16_t *at = (const uint16_t *)rough + begin;
        #pragma omp simd reduction(max:top)
        for (int64_t j = 0; j < n; j++) {
            float value = wide(at[j]);
            top = value > top ? value : top;
        }
    } else {
        const float *at = (const float *)rough + begin;
        #pragma omp simd reduction(max:top)
        for (int64_t j = 0; j < n; j++)
            top = at[j] > top ? at[j] : top;
    }
    return top >= least;
}

static int64_t listed(const int64_t *list, int64_t low, int64_t high, int64_t item)
{
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (list[middle] < item)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* For each of m open rows: adds to above and at_least how many of n items score higher than own, and
 * at least as high, until depth are above. An item counts whose rough score reaches least. seen, if
 * any, are items that do not count, ascending, from ends[row] to ends[row + 1]; the target does. */
void contend(const void *rough, int halves, const float *least, const int64_t *open, int64_t m,
             const int64_t *items, int64_t n, const float *vectors, const float *table,
             const float *bias, int64_t d, const float *own, const int64_t *targets,
             const int64_t *seen, const int64_t *ends, int64_t depth, int64_t *above,
             int64_t *at_least, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(dynamic, 16)
    for (int64_t i = 0; i < m; i++) {
        int64_t row = open[i];
        for (int64_t begin = 0; begin < n && above[row] < depth; begin += CHUNK) {
            int64_t end = n - begin < CHUNK ? n : begin + CHUNK;
            if (!reached(rough, halves, i * n + begin, end - begin, least[i]))
                continue;
            int64_t found = 0, in_reach[CHUNK];
            for (int64_t j = begin; j < end; j++) {
                int64_t at = i * n + j;
                float hint = halves ? wide(((const uint16_t *)rough)[at])
                                    : ((const float *)rough)[at];
                if (hint < least[i])
                    continue;
                in_reach[found++] = items[j];
                for (int64_t l = 0; l < d; l += 16)
                    __builtin_prefetch(table + items[j] * d + l, 0, 3);
            }
            for (int64_t k = 0; k < found && above[row] < depth; k++) {
                int64_t item = in_reach[k];
                if (seen && item != targets[row]) {
                    int64_t low = listed(seen, ends[row], ends[row + 1], item);
                    if (low < ends[row + 1] && seen[low] == item)
                        continue;
                }
                float value = score(vectors + row * d, table + item * d, d, bias[item]);
                above[row] += value > own[row];
                at_least[row] += value >= own[row];
            }
        }
    }
}
