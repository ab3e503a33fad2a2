// A card that is not there: enough of the CUDA driver, cuBLAS and NVRTC to run the engine's kernels on a processor, slowly,
// so that errors of logic are found where there is no card. `README.md` beside this says how to use it.
//
// "Compiling" the kernels means handing their source to g++. A block's threads are fibers that run until they wait for each
// other; their order is reversed where EMULATED_ORDER is set, which shows most missing barriers. Memory begins as NaN, and
// behind each piece of it lies a page that nobody may touch.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fstream>
#include <regex>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <unordered_map>

#define API extern "C" __attribute__((visibility("default")))

static const char* PRELUDE = R"source(
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>
#define EMULATED
#define __global__
#define __device__
#define __shared__ static
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;
static float __int_as_float(int bits) { float x; memcpy(&x, &bits, 4); return x; }
template <class T> static T min(T a, T b) { return a < b ? a : b; }
template <class T> static T max(T a, T b) { return a > b ? a : b; }

enum State { READY, AT_BLOCK, AT_WARP, DONE };
struct Fiber { void* stack; char* memory; State state; };
static Fiber fibers[1024];
static void* scheduler;
static int running;
static float slots[1024];
static void (*body)(void**);
static void** arguments;

extern "C" void exchange(void** save, void* load);
asm(R"asm(
.text
exchange:
    push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
    ret
)asm");

static void wait(State state) {
    Fiber& fiber = fibers[running];
    Index own = threadIdx;
    fiber.state = state;
    exchange(&fiber.stack, scheduler);
    threadIdx = own;
}
static void __syncthreads() { wait(AT_BLOCK); }
static float __shfl_xor_sync(unsigned, float value, int lane) {
    slots[running] = value;
    wait(AT_WARP);
    value = slots[running ^ lane];
    wait(AT_WARP);
    return value;
}
static void run() {
    body(arguments);
    wait(DONE);
    abort();
}
static void block(int threads, bool reversed) {
    const size_t size = 1 << 16;
    for (int i = 0; i < threads; i++) {
        Fiber& fiber = fibers[i];
        if (!fiber.memory) fiber.memory = (char*)aligned_alloc(64, size);
        void** top = (void**)(fiber.memory + size - 64);
        *--top = nullptr;
        *--top = (void*)run;
        for (int j = 0; j < 6; j++) *--top = nullptr;
        fiber.stack = top;
        fiber.state = READY;
    }
    for (;;) {
        bool moved = false;
        int done = 0, at_block = 0;
        for (int j = 0; j < threads; j++) {
            int i = reversed ? threads - 1 - j : j;
            if (fibers[i].state == READY) {
                running = i;
                threadIdx = {(unsigned)i, 0, 0};
                exchange(&scheduler, fibers[i].stack);
                moved = true;
            }
        }
        for (int first = 0; first < threads; first += 32) {
            int there = 0, gone = 0;
            for (int i = first; i < first + 32; i++) {
                there += fibers[i].state == AT_WARP;
                gone += fibers[i].state == DONE;
                done += fibers[i].state == DONE;
                at_block += fibers[i].state == AT_BLOCK;
            }
            if (there && gone) { fprintf(stderr, "a warp shuffles without some of its threads\n"); abort(); }
            if (there == 32) {
                for (int i = first; i < first + 32; i++) fibers[i].state = READY;
                moved = true;
            }
        }
        if (done == threads) return;
        if (at_block + done == threads) {
            for (int i = 0; i < threads; i++) if (fibers[i].state == AT_BLOCK) fibers[i].state = READY;
            moved = true;
        }
        if (!moved) { fprintf(stderr, "the threads of a block wait for ever\n"); abort(); }
    }
}
template <class... A, size_t... I> static void call(void (*kernel)(A...), void** from, std::index_sequence<I...>) {
    kernel(*(A*)from[I]...);
}
#define KERNEL(name) \
    template <class... A> static void body_##name(void (*kernel)(A...), void** from) { \
        call(kernel, from, std::index_sequence_for<A...>()); \
    } \
    static void start_##name(void** from) { body_##name(name, from); } \
    extern "C" void launch_##name(unsigned x, unsigned y, unsigned threads, void** from) { \
        bool reversed = getenv("EMULATED_ORDER") != nullptr; \
        gridDim = {x, y, 1}; \
        blockDim = {threads, 1, 1}; \
        body = start_##name; \
        arguments = from; \
        for (unsigned j = 0; j < y; j++) for (unsigned i = 0; i < x; i++) { blockIdx = {i, j, 0}; block(threads, reversed); } \
    }
)source";

// ---- the driver

typedef void (*Launch)(unsigned, unsigned, unsigned, void**);
static std::unordered_map<uint64_t, std::pair<void*, size_t>> pieces;
static size_t used = 0;
// Bytes of memory; EMULATED_BYTES makes a smaller card.
static const size_t ALL = getenv("EMULATED_BYTES") ? strtoull(getenv("EMULATED_BYTES"), nullptr, 10) : (size_t)4 << 30;

API int cuGetErrorName(int, const char** name) { *name = "an emulated error"; return 0; }
API int cuGetErrorString(int, const char** text) { *text = "it is emulated"; return 0; }
API int cuInit(unsigned) { return 0; }
API int cuDeviceGetCount(int* count) { *count = 1; return 0; }
API int cuDeviceGet(int* device, int) { *device = 0; return 0; }
API int cuDeviceGetName(char* name, int length, int) { snprintf(name, length, "an emulated card"); return 0; }
API int cuDeviceGetAttribute(int* value, int which, int) {
    *value = which == 75 ? 9 : which == 76 ? 0 : 227 * 1024;
    return 0;
}
API int cuDevicePrimaryCtxRetain(void** context, int) { *context = (void*)8; return 0; }
API int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API int cuCtxSetCurrent(void*) { return 0; }
API int cuMemGetInfo_v2(size_t* free, size_t* total) { *free = ALL - used; *total = ALL; return 0; }
API int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    if (used + bytes > ALL) return 2;
    size_t page = sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    char* memory = (char*)mmap(nullptr, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 2;
    memset(memory, 0xff, whole);
    mprotect(memory + whole, page, PROT_NONE);
    *address = (uint64_t)(memory + whole - (bytes + 7) / 8 * 8);
    pieces[*address] = {memory, whole + page};
    used += bytes;
    return 0;
}
API int cuMemFree_v2(uint64_t address) {
    auto piece = pieces.find(address);
    if (piece == pieces.end()) return 1;
    munmap(piece->second.first, piece->second.second);
    pieces.erase(piece);
    return 0;
}
API int cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t bytes) { memcpy((void*)to, from, bytes); return 0; }
API int cuMemcpyDtoH_v2(void* to, uint64_t from, size_t bytes) { memcpy(to, (void*)from, bytes); return 0; }
API int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void*) { memcpy((void*)to, (void*)from, bytes); return 0; }
API int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void*) { memset((void*)to, value, bytes); return 0; }
API int cuModuleLoadData(void** module, const void* image) {
    *module = dlopen((const char*)image, RTLD_NOW | RTLD_LOCAL);
    if (!*module) fprintf(stderr, "%s\n", dlerror());
    return *module ? 0 : 200;
}
API int cuModuleUnload(void*) { return 0; }
API int cuCtxSynchronize() { return 0; }
API int cuModuleGetFunction(void** function, void* module, const char* name) {
    *function = dlsym(module, (std::string("launch_") + name).c_str());
    return *function ? 0 : 500;
}
API int cuFuncSetAttribute(void*, int, int bytes) { return bytes > 227 * 1024 ? 1 : 0; }
API int cuLaunchKernel(
    void* function, unsigned x, unsigned y, unsigned, unsigned threads, unsigned, unsigned, unsigned, void*, void** from, void**
) {
    ((Launch)function)(x, y, threads, from);
    return 0;
}

// ---- NVRTC

struct Program { std::string source, log, image; };

API int nvrtcCreateProgram(Program** program, const char* source, const char*, int, const char**, const char**) {
    *program = new Program{source, "", ""};
    return 0;
}
API int nvrtcCompileProgram(Program* program, int count, const char** options) {
    std::string defines;
    for (int i = 0; i < count; i++) if (!strncmp(options[i], "-D", 2)) defines += std::string(" ") + options[i];
    size_t digest = std::hash<std::string>()(PRELUDE + program->source + defines);
    std::string place = "/tmp/emulated-" + std::to_string(getuid()) + "-" + std::to_string(digest);
    program->image = place + ".so";
    if (access(program->image.c_str(), R_OK) == 0) return 0;
    std::ofstream file(place + ".cpp");
    file << PRELUDE << program->source << "\n";
    std::regex kernel("__global__ void (\\w+)\\(");
    std::sregex_iterator at(program->source.begin(), program->source.end(), kernel), none;
    for (; at != none; ++at) file << "KERNEL(" << (*at)[1] << ")\n";
    file.close();
    std::string command = "g++ -std=c++17 -O2 -w -fPIC -shared" + defines + " -o " + place + ".so " + place + ".cpp";
    return system(command.c_str()) == 0 ? 0 : 6;
}
API int nvrtcGetProgramLogSize(Program* program, size_t* size) { *size = program->log.size() + 1; return 0; }
API int nvrtcGetProgramLog(Program* program, char* log) { strcpy(log, program->log.c_str()); return 0; }
API int nvrtcGetCUBINSize(Program* program, size_t* size) { *size = program->image.size() + 1; return 0; }
API int nvrtcGetCUBIN(Program* program, char* image) { strcpy(image, program->image.c_str()); return 0; }
API int nvrtcDestroyProgram(Program** program) { delete *program; return 0; }

// ---- cuBLAS

API int cublasCreate_v2(void** handle) { *handle = (void*)8; return 0; }
API int cublasDestroy_v2(void*) { return 0; }
API int cublasGemmEx(
    void*, int left_way, int right_way, int m, int n, int k, const float* alpha, const float* a, int, int lda,
    const float* b, int, int ldb, const float* beta, float* c, int, int ldc, int, int
) {
    if (lda < (left_way ? k : m) || ldb < (right_way ? n : k) || ldc < m) return 7;
    for (long j = 0; j < n; j++) for (long i = 0; i < m; i++) {
        double sum = 0.0;
        for (long l = 0; l < k; l++) {
            sum += (double)(left_way ? a[l + i * lda] : a[i + l * lda]) * (right_way ? b[j + l * ldb] : b[l + j * ldb]);
        }
        float* to = c + i + j * ldc;
        *to = (float)(*alpha * sum) + (*beta == 0.0f ? 0.0f : *beta * *to);
    }
    return 0;
}
