// Runs the kernels of scripts/repository/steps/preprocess/gpu_resize.cu on a CPU, one thread after
// the other. The macro SOURCE is that file.

#include <cmath>

#define __device__ static inline
#define __global__

struct Index {
    unsigned int x, y, z;
};

static Index blockIdx, blockDim, threadIdx;

#include SOURCE

template <typename Kernel>
static void for_each_thread(const unsigned int* grid, const unsigned int* block, Kernel kernel) {
    blockDim = {block[0], block[1], block[2]};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x)
                for (threadIdx.z = 0; threadIdx.z < block[2]; ++threadIdx.z)
                    for (threadIdx.y = 0; threadIdx.y < block[1]; ++threadIdx.y)
                        for (threadIdx.x = 0; threadIdx.x < block[0]; ++threadIdx.x) kernel();
}

typedef const unsigned int* Dimensions;

extern "C" {

void launch_make_weights(
    Dimensions grid, Dimensions block, const Picture* pictures, int* weights, int filter,
    double support
) {
    for_each_thread(grid, block, [=] { make_weights(pictures, weights, filter, support); });
}

void launch_resize_across(
    Dimensions grid, Dimensions block, const Picture* pictures, const int* weights, byte* between
) {
    for_each_thread(grid, block, [=] { resize_across(pictures, weights, between); });
}

void launch_resize_down(
    Dimensions grid, Dimensions block, const Picture* pictures, const int* weights,
    const byte* between, byte* target, int crop_width, int crop_height, int channels, int fill
) {
    for_each_thread(grid, block, [=] {
        resize_down(
            pictures, weights, between, target, crop_width, crop_height, channels, fill);
    });
}

void launch_count_colours(
    Dimensions grid, Dimensions block, const integer* rows, int* counts
) {
    for_each_thread(grid, block, [=] { count_colours(rows, counts); });
}
}
