// The arithmetic of a card, but for matrix products. It is compiled when a card is opened, for that card and for the width of
// a head, HEAD_DIM.
//
// Every sum has a fixed order: a result is written by one thread, and no two threads add to one number. So the same card
// gives the same bits again. Indices of numbers are 64 bits wide where a buffer may be long; counts of rows are not.

typedef unsigned int u32;
typedef unsigned long long u64;

#define THREADS 256
#define INFINITE __int_as_float(0x7f800000)

// ---- sums and maxima over a block of THREADS threads; every thread gets the result

__device__ float warp_sum(float x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

__device__ float warp_max(float x) {
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

__device__ float block_sum(float x) {
    __shared__ float parts[32];
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.0f;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++) sum += parts[warp];
    return sum;
}

__device__ float block_max(float x) {
    __shared__ float parts[32];
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    float largest = -INFINITE;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++) largest = fmaxf(largest, parts[warp]);
    return largest;
}

// In 64 bits, by one array of the block: few numbers, so that speed does not matter.
__device__ double block_sum_wide(double x) {
    __shared__ double parts[THREADS];
    __syncthreads();
    parts[threadIdx.x] = x;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
        __syncthreads();
    }
    return parts[0];
}

__device__ double block_max_wide(double x) {
    __shared__ double parts[THREADS];
    __syncthreads();
    parts[threadIdx.x] = x;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) parts[threadIdx.x] = fmax(parts[threadIdx.x], parts[threadIdx.x + half]);
        __syncthreads();
    }
    return parts[0];
}

// ---- rows that are moved

// out[i] = table[places[i]]; a block a row.
extern "C" __global__ void gather(const float* table, const u32* places, int width, float* out) {
    const float* from = table + (u64)places[blockIdx.x] * width;
    float* to = out + (u64)blockIdx.x * width;
    for (int at = threadIdx.x; at < width; at += blockDim.x) to[at] = from[at];
}

// out[places[i]] = rows[i]; no place comes twice.
extern "C" __global__ void scatter(const float* rows, const u32* places, int width, float* out) {
    const float* from = rows + (u64)blockIdx.x * width;
    float* to = out + (u64)places[blockIdx.x] * width;
    for (int at = threadIdx.x; at < width; at += blockDim.x) to[at] = from[at];
}

// table[token] += the sum of the rows that have the token; a block a token. `groups` holds for each token itself and where
// its rows begin in `order`; one more entry ends the last one.
extern "C" __global__ void add_groups(const float* x, const u32* groups, const u32* order, int width, float* table) {
    const u32* group = groups + 2 * blockIdx.x;
    float* to = table + (u64)group[0] * width;
    for (int at = threadIdx.x; at < width; at += blockDim.x) {
        float sum = 0.0f;
        for (u32 i = group[1]; i < group[3]; i++) sum += x[(u64)order[i] * width + at];
        to[at] += sum;
    }
}

// ---- norms

// A block a row.
extern "C" __global__ void rms_norm(const float* x, const float* scale, float epsilon, int width, float* out, float* inverse) {
    x += (u64)blockIdx.x * width;
    out += (u64)blockIdx.x * width;
    float square = 0.0f;
    for (int at = threadIdx.x; at < width; at += blockDim.x) square += x[at] * x[at];
    float r = 1.0f / sqrtf(block_sum(square) / width + epsilon);
    for (int at = threadIdx.x; at < width; at += blockDim.x) out[at] = x[at] * r * scale[at];
    if (threadIdx.x == 0) inverse[blockIdx.x] = r;
}

// Adds to dx; a block a row.
extern "C" __global__ void rms_norm_backward(
    const float* x, const float* scale, const float* inverse, const float* dy, int width, float* dx
) {
    x += (u64)blockIdx.x * width;
    dy += (u64)blockIdx.x * width;
    dx += (u64)blockIdx.x * width;
    float r = inverse[blockIdx.x];
    float dot = 0.0f;
    for (int at = threadIdx.x; at < width; at += blockDim.x) dot += dy[at] * scale[at] * x[at];
    float shared = block_sum(dot) * r * r * r / width;
    for (int at = threadIdx.x; at < width; at += blockDim.x) dx[at] += dy[at] * scale[at] * r - x[at] * shared;
}

// Sums over rows of x, or of x * y * inverse where `y` is there: first over stretches of `stretch` rows, blocks of 32 columns
// by 8 rows, into `parts`, [stretches, width]. Item i is row i / heads, head i % heads of rows that are so far apart.
extern "C" __global__ void column_parts(
    const float* x, const float* y, const float* inverse, int items, int width, int stretch,
    int heads, int x_step, int y_step, int inverse_step, float* parts
) {
    __shared__ float sums[8][33];
    int column = blockIdx.x * 32 + threadIdx.x % 32, lane = threadIdx.x / 32;
    int end = min(items, (int)(blockIdx.y + 1) * stretch);
    float sum = 0.0f;
    if (column < width) {
        for (int item = blockIdx.y * stretch + lane; item < end; item += 8) {
            int row = item / heads, head = item % heads;
            float value = x[(u64)row * x_step + head * width + column];
            if (y) value *= y[(u64)row * y_step + head * width + column] * inverse[(u64)row * inverse_step + head];
            sum += value;
        }
    }
    sums[lane][threadIdx.x % 32] = sum;
    __syncthreads();
    if (lane == 0 && column < width) {
        for (int other = 1; other < 8; other++) sum += sums[other][threadIdx.x];
        parts[(u64)blockIdx.y * width + column] = sum;
    }
}

// Then over the stretches; a thread a column.
extern "C" __global__ void column_sums(const float* parts, int stretches, int width, float* sums) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    float sum = 0.0f;
    for (int at = 0; at < stretches; at++) sum += parts[(u64)at * width + column];
    sums[column] += sum;
}

// Norms the heads of queries and keys; a warp a head, 8 a block.
extern "C" __global__ void norm_heads(
    float* qkv, const float* q_scale, const float* k_scale, float epsilon, int rows, int heads, int kv_heads,
    float* plain, float* inverse
) {
    int turned = heads + kv_heads, item = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (item >= rows * turned) return;
    int row = item / turned, head = item % turned;
    float* x = qkv + (u64)row * (heads + 2 * kv_heads) * HEAD_DIM + head * HEAD_DIM;
    float* before = plain + (u64)item * HEAD_DIM;
    const float* scale = head < heads ? q_scale : k_scale;
    float square = 0.0f;
    for (int at = lane; at < HEAD_DIM; at += 32) square += x[at] * x[at];
    float r = 1.0f / sqrtf(warp_sum(square) / HEAD_DIM + epsilon);
    for (int at = lane; at < HEAD_DIM; at += 32) {
        before[at] = x[at];
        x[at] = x[at] * r * scale[at];
    }
    if (lane == 0) inverse[item] = r;
}

// Turns the gradient of some heads, from head `first` on, into that before the norm.
extern "C" __global__ void norm_heads_backward(
    float* d_qkv, const float* plain, const float* inverse, const float* scale, int rows, int first, int count,
    int heads, int kv_heads
) {
    int item = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (item >= rows * count) return;
    int row = item / count, head = first + item % count, turned = heads + kv_heads;
    float* d = d_qkv + (u64)row * (turned + kv_heads) * HEAD_DIM + head * HEAD_DIM;
    const float* x = plain + ((u64)row * turned + head) * HEAD_DIM;
    float r = inverse[(u64)row * turned + head];
    float dot = 0.0f;
    for (int at = lane; at < HEAD_DIM; at += 32) dot += d[at] * scale[at] * x[at];
    float shared = warp_sum(dot) * r * r * r / HEAD_DIM;
    for (int at = lane; at < HEAD_DIM; at += 32) d[at] = d[at] * scale[at] * r - x[at] * shared;
}

// ---- positions and gates

// Turns the first `heads` heads of each row by the angles of its position; `sign` is -1 on the way back.
extern "C" __global__ void rotate(
    float* x, const u32* positions, const float* cosines, const float* sines, u64 count, int row_step, int heads, float sign
) {
    u64 item = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= count) return;
    const int half = HEAD_DIM / 2;
    int at = item % half, head = item / half % heads;
    u64 row = item / half / heads, angle = (u64)positions[row] * half + at;
    float* low = x + row * row_step + head * HEAD_DIM + at;
    float cosine = cosines[angle], sine = sign * sines[angle], a = low[0], b = low[half];
    low[0] = a * cosine - b * sine;
    low[half] = b * cosine + a * sine;
}

extern "C" __global__ void silu_gate(const float* gate_up, u64 count, int width, float* out) {
    u64 item = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= count) return;
    u64 row = item / width, at = item % width;
    float gate = gate_up[row * 2 * width + at], up = gate_up[row * 2 * width + width + at];
    out[item] = gate / (1.0f + expf(-gate)) * up;
}

extern "C" __global__ void silu_gate_backward(float* gate_up, u64 count, int width, float* d_out) {
    u64 item = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= count) return;
    u64 row = item / width, at = item % width;
    float* gate = gate_up + row * 2 * width + at;
    float* up = gate + width;
    float sigmoid = 1.0f / (1.0f + expf(-*gate)), silu = *gate * sigmoid, d = d_out[item], g = *gate, u = *up;
    d_out[item] = silu * u;
    *gate = d * u * sigmoid * (1.0f + g * (1.0f - sigmoid));
    *up = d * silu;
}

extern "C" __global__ void add_to_rows(float* x, const float* row, u64 count, int width) {
    u64 item = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (item < count) x[item] += row[item % width];
}

// ---- the optimiser

// Sums of squares, one of each block; the host adds them up.
extern "C" __global__ void squares(const float* x, u64 count, double* parts) {
    double sum = 0.0;
    u64 each = (u64)gridDim.x * blockDim.x;
    for (u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x; at < count; at += each) sum += (double)x[at] * x[at];
    sum = block_sum_wide(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// One step of AdamW; a row of blocks a stretch, which is its begin, its end and whether it decays.
extern "C" __global__ void adam(
    const u64* stretches, float scale, float rate, float decay, float beta1, float beta2, float unbias1, float unbias2,
    float epsilon, const float* gradient, float* weights, float* first, float* second
) {
    const u64* stretch = stretches + 3 * (u64)blockIdx.x;
    float pull = stretch[2] ? decay : 0.0f;
    u64 each = (u64)gridDim.y * blockDim.x;
    for (u64 at = stretch[0] + (u64)blockIdx.y * blockDim.x + threadIdx.x; at < stretch[1]; at += each) {
        float g = gradient[at] * scale;
        float m = beta1 * first[at] + (1.0f - beta1) * g;
        float v = beta2 * second[at] + (1.0f - beta2) * (g * g);
        first[at] = m;
        second[at] = v;
        float direction = m * unbias1 / (sqrtf(v * unbias2) + epsilon);
        weights[at] -= weights[at] * pull + rate * direction;
    }
}
