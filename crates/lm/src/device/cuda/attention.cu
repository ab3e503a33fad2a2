// Causal attention over sequences that lie end to end, by tiles (Dao et al. 2022): scores are never in memory. A tile is its
// begin and end, and the begin and end of its sequence. Blocks have 16 by 16 threads; thread (tx, ty) has the rows ty + 16 i and
// the columns tx + 16 j of every matrix of a tile.

#define SIDE 16
#define WIDE (HEAD_DIM <= 64 ? 64 : 32)
#define NARROW 32
#define PITCH (HEAD_DIM + 1)
#define COLUMNS ((HEAD_DIM + SIDE - 1) / SIDE)
#define SCORES (NARROW + 1)
// A short loop whose counter chooses a register.
#define EACH(at, count) _Pragma("unroll") for (int at = 0; at < count; at++)

#ifdef EMULATED
static float room[1 << 16];
#else
extern __shared__ float room[];
#endif

// Rows begin..begin + count of a matrix of HEAD_DIM columns; zeros from `end` on.
__device__ void load_rows(float* to, const float* from, u64 step, int begin, int end, int count) {
    for (int at = threadIdx.x; at < count * HEAD_DIM; at += THREADS) {
        int row = at / HEAD_DIM, column = at % HEAD_DIM;
        to[row * PITCH + column] = begin + row < end ? from[(u64)(begin + row) * step + column] : 0.0f;
    }
}

// Sum and maximum over the 16 threads that share rows.
__device__ float side_sum(float x) {
    for (int step = 8; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

__device__ float side_max(float x) {
    for (int step = 8; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

__device__ bool sees(int query, int key, int end, int window) {
    return query < end && key <= query && query - key < window;
}

// products[i][j] = a row of `a` times a row of `b`.
template <int A, int B>
__device__ void products(const float* a, const float* b, float (&out)[A][B]) {
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    EACH(i, A) EACH(j, B) out[i][j] = 0.0f;
    #pragma unroll 8
    for (int at = 0; at < HEAD_DIM; at++) {
        float left[A], right[B];
        EACH(i, A) left[i] = a[(ty + SIDE * i) * PITCH + at];
        EACH(j, B) right[j] = b[(tx + SIDE * j) * PITCH + at];
        EACH(i, A) EACH(j, B) out[i][j] += left[i] * right[j];
    }
}

// out += weights * rows, the weights at (row, at) at row * row_step + at * step of `weights`.
template <int A>
__device__ void weigh(const float* weights, int row_step, int step, int count, const float* rows, float (&out)[A][COLUMNS]) {
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    #pragma unroll 4
    for (int at = 0; at < count; at++) {
        float weight[A];
        EACH(i, A) weight[i] = weights[(ty + SIDE * i) * row_step + at * step];
        EACH(j, COLUMNS) {
            // Beyond the last column stands what belongs to the next row; it is not written.
            float value = rows[at * PITCH + tx + SIDE * j];
            EACH(i, A) out[i][j] += weight[i] * value;
        }
    }
}

template <int A>
__device__ void store(float* to, u64 step, int begin, int end, const float (&out)[A][COLUMNS], float scale) {
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    EACH(i, A) {
        int row = begin + ty + SIDE * i;
        EACH(j, COLUMNS) {
            int column = tx + SIDE * j;
            if (row < end && column < HEAD_DIM) to[(u64)row * step + column] = out[i][j] * scale;
        }
    }
}

// A block a tile of WIDE queries and a head.
extern "C" __global__ void attend(
    const float* qkv, const u32* tiles, int rows, int heads, int kv_heads, int window, float scale,
    float* context, float* logsums
) {
    const int A = WIDE / SIDE, B = NARROW / SIDE;
    const u32* tile = tiles + 4 * blockIdx.x;
    int begin = tile[0], end = tile[1], head = blockIdx.y, kv = head / (heads / kv_heads);
    int first = max((int)tile[2], begin + 1 - window);
    u64 step = (u64)(heads + 2 * kv_heads) * HEAD_DIM;
    float *q = room, *k = q + WIDE * PITCH, *p = k + NARROW * PITCH + SIDE;
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    float sums[A][COLUMNS] = {}, largest[A], whole[A];
    EACH(i, A) { largest[i] = -INFINITE; whole[i] = 0.0f; }
    load_rows(q, qkv + head * HEAD_DIM, step, begin, end, WIDE);
    for (int from = first; from < end; from += NARROW) {
        __syncthreads();
        load_rows(k, qkv + (heads + kv) * HEAD_DIM, step, from, end, NARROW);
        __syncthreads();
        float s[A][B];
        products<A, B>(q, k, s);
        EACH(i, A) {
            int query = begin + ty + SIDE * i;
            float most = -INFINITE;
            EACH(j, B) {
                bool seen = sees(query, from + tx + SIDE * j, end, window);
                s[i][j] = seen ? s[i][j] * scale : -INFINITE;
                most = fmaxf(most, s[i][j]);
            }
            most = fmaxf(largest[i], side_max(most));
            // Nothing seen so far: all stays as it is.
            float kept = most == -INFINITE ? 1.0f : expf(largest[i] - most);
            float sum = 0.0f;
            EACH(j, B) {
                float value = s[i][j] == -INFINITE ? 0.0f : expf(s[i][j] - most);
                p[(ty + SIDE * i) * SCORES + tx + SIDE * j] = value;
                sum += value;
            }
            whole[i] = whole[i] * kept + side_sum(sum);
            largest[i] = most;
            EACH(j, COLUMNS) sums[i][j] *= kept;
        }
        __syncthreads();
        load_rows(k, qkv + (heads + kv_heads + kv) * HEAD_DIM, step, from, end, NARROW);
        __syncthreads();
        weigh<A>(p, SCORES, 1, NARROW, k, sums);
    }
    EACH(i, A) {
        int row = begin + ty + SIDE * i;
        if (row < end && tx == 0) logsums[(u64)head * rows + row] = largest[i] + logf(whole[i]);
        EACH(j, COLUMNS) sums[i][j] /= whole[i];
    }
    store<A>(context + head * HEAD_DIM, (u64)heads * HEAD_DIM, begin, end, sums, 1.0f);
}

// The inner product of each head's result and its gradient, [heads, rows]; a warp a head, 8 a block.
extern "C" __global__ void attend_shared(const float* context, const float* d_context, int rows, int heads, float* shared) {
    int item = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (item >= rows * heads) return;
    u64 at = (u64)item * HEAD_DIM;
    float dot = 0.0f;
    for (int i = lane; i < HEAD_DIM; i += 32) dot += context[at + i] * d_context[at + i];
    dot = warp_sum(dot);
    if (lane == 0) shared[(u64)(item % heads) * rows + item / heads] = dot;
}

// Probabilities, and the gradient of the scores, of a tile of queries and one of keys.
__device__ void tile_gradient(
    const float* q, const float* d, const float* k, const float* v, const float* logsums, const float* shared,
    int begin, int end, int from, int window, float scale, float* p, float* ds
) {
    const int N = NARROW / SIDE;
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    float s[N][N], dp[N][N];
    products<N, N>(q, k, s);
    products<N, N>(d, v, dp);
    EACH(i, N) {
        int query = begin + ty + SIDE * i;
        EACH(j, N) {
            int at = (ty + SIDE * i) * SCORES + tx + SIDE * j;
            bool seen = sees(query, from + tx + SIDE * j, end, window);
            float probability = seen ? expf(s[i][j] * scale - logsums[query]) : 0.0f;
            p[at] = probability;
            ds[at] = seen ? probability * (dp[i][j] - shared[query]) : 0.0f;
        }
    }
}

// The gradient of the queries; a block a tile of NARROW queries and a head.
extern "C" __global__ void attend_queries(
    const float* qkv, const u32* tiles, int rows, int heads, int kv_heads, int window, float scale,
    const float* logsums, const float* shared, const float* d_context, float* d_qkv
) {
    const int N = NARROW / SIDE;
    const u32* tile = tiles + 4 * blockIdx.x;
    int begin = tile[0], end = tile[1], head = blockIdx.y, kv = head / (heads / kv_heads);
    int first = max((int)tile[2], begin + 1 - window);
    u64 step = (u64)(heads + 2 * kv_heads) * HEAD_DIM;
    float *q = room, *d = q + NARROW * PITCH, *k = d + NARROW * PITCH, *v = k + NARROW * PITCH + SIDE;
    float *p = v + NARROW * PITCH + SIDE, *ds = p + NARROW * SCORES;
    float sums[N][COLUMNS] = {};
    load_rows(q, qkv + head * HEAD_DIM, step, begin, end, NARROW);
    load_rows(d, d_context + head * HEAD_DIM, (u64)heads * HEAD_DIM, begin, end, NARROW);
    for (int from = first; from < end; from += NARROW) {
        __syncthreads();
        load_rows(k, qkv + (heads + kv) * HEAD_DIM, step, from, end, NARROW);
        load_rows(v, qkv + (heads + kv_heads + kv) * HEAD_DIM, step, from, end, NARROW);
        __syncthreads();
        const float *ls = logsums + (u64)head * rows, *sh = shared + (u64)head * rows;
        tile_gradient(q, d, k, v, ls, sh, begin, end, from, window, scale, p, ds);
        __syncthreads();
        weigh<N>(ds, SCORES, 1, NARROW, k, sums);
    }
    store<N>(d_qkv + head * HEAD_DIM, step, begin, end, sums, scale);
}

// The gradient of keys and values; a block a tile of NARROW keys and a head of them.
extern "C" __global__ void attend_keys(
    const float* qkv, const u32* tiles, int rows, int heads, int kv_heads, int window, float scale,
    const float* logsums, const float* shared, const float* d_context, float* d_qkv
) {
    const int N = NARROW / SIDE;
    const u32* tile = tiles + 4 * blockIdx.x;
    int begin = tile[0], end = tile[1], kv = blockIdx.y, group = heads / kv_heads;
    // The last key is seen by so many queries from itself on; `window` is small enough not to wrap.
    int last = min((int)tile[3], end - 1 + window);
    u64 step = (u64)(heads + 2 * kv_heads) * HEAD_DIM;
    float *q = room, *d = q + NARROW * PITCH + SIDE, *k = d + NARROW * PITCH + SIDE, *v = k + NARROW * PITCH;
    float *p = v + NARROW * PITCH, *ds = p + NARROW * SCORES;
    float d_keys[N][COLUMNS] = {}, d_values[N][COLUMNS] = {};
    load_rows(k, qkv + (heads + kv) * HEAD_DIM, step, begin, end, NARROW);
    load_rows(v, qkv + (heads + kv_heads + kv) * HEAD_DIM, step, begin, end, NARROW);
    for (int head = kv * group; head < (kv + 1) * group; head++) {
        const float *ls = logsums + (u64)head * rows, *sh = shared + (u64)head * rows;
        for (int from = begin; from < last; from += NARROW) {
            __syncthreads();
            load_rows(q, qkv + head * HEAD_DIM, step, from, last, NARROW);
            load_rows(d, d_context + head * HEAD_DIM, (u64)heads * HEAD_DIM, from, last, NARROW);
            __syncthreads();
            tile_gradient(q, d, k, v, ls, sh, from, last, begin, window, scale, p, ds);
            __syncthreads();
            weigh<N>(p, 1, SCORES, NARROW, d, d_values);
            weigh<N>(ds, 1, SCORES, NARROW, q, d_keys);
        }
    }
    store<N>(d_qkv + (heads + kv) * HEAD_DIM, step, begin, end, d_keys, scale);
    store<N>(d_qkv + (heads + kv_heads + kv) * HEAD_DIM, step, begin, end, d_values, 1.0f);
}
