// Resizes, crops and turns pictures of different sizes as Pillow does, bit by bit.
//
// Each picture is resized across and then down, with a grey level rounded in between, and only the
// pixels that are kept are computed. The arithmetic is that of Pillow's src/libImaging/Resample.c
// for 8 bits: weights are computed as double and rounded to fixed-point numbers of 22 bits. It must
// be compiled without fused multiply-adds, which would round differently.
//
// tests/cuda/stand_in/resize_on_cpu.cpp compiles the same file for a CPU.

typedef unsigned char byte;
typedef long long integer;

// As `PICTURE` in gpu_pictures.py. Sizes are of the upright picture, in pixels; places are in bytes,
// or in elements of `weights`.
struct Picture {
    integer source;                    // address of the upper left pixel
    integer step_across, step_down;    // from a pixel to its right and its lower neighbour
    integer width, height;
    integer resized_width, resized_height;
    integer left, top, right, bottom;  // the part of the resized picture that is kept
    integer place_left, place_top;     // of that part in the crop
    integer first_row, rows;           // of the source, from which that part is made
    integer taps_across, taps_down;    // the most weights that a pixel has
    integer across, down;              // in `weights`
    integer between;                   // in `between`: the rows after the first pass
    integer target, target_step;       // in `target`: the left upper pixel, and to its neighbour
};

const int CHANNELS = 3;
const int PRECISION = 32 - 8 - 2;
const double PI = 3.14159265358979323846;
const byte GREY = 128;  // what a decoder fills in for missing pixels

enum Filter { BOX, BILINEAR, HAMMING, BICUBIC, LANCZOS };

__device__ double sinc(double x) {
    if (x == 0) return 1;
    x *= PI;
    return sin(x) / x;
}

__device__ double filter_value(int filter, double x) {
    if (filter == BOX) return x > -0.5 && x <= 0.5 ? 1 : 0;
    if (filter == LANCZOS) return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0;
    if (x < 0) x = -x;
    if (filter == BILINEAR) return x < 1 ? 1 - x : 0;
    if (filter == HAMMING) {
        if (x == 0) return 1;
        if (x >= 1) return 0;
        x *= PI;
        return sin(x) / x * (0.54f + 0.46f * cos(x));
    }
    const double a = -0.5;
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

// Writes the weights of one row or column of the result: the first pixel, how many there are, and
// a weight for each.
__device__ void write_weights(
    int* entry, integer source, integer resized, integer position, int filter, double support
) {
    const double scale = (double)source / resized;
    const double wide = scale < 1 ? 1 : scale;
    const double reach = support * wide;
    const double centre = (position + 0.5) * scale;
    int first = (int)(centre - reach + 0.5);
    if (first < 0) first = 0;
    int last = (int)(centre + reach + 0.5);
    if (last > source) last = (int)source;
    const double inverse = 1 / wide;
    double total = 0;
    for (int pixel = first; pixel < last; ++pixel)
        total += filter_value(filter, (pixel - centre + 0.5) * inverse);
    entry[0] = first;
    entry[1] = last - first;
    for (int pixel = first; pixel < last; ++pixel) {
        double weight = filter_value(filter, (pixel - centre + 0.5) * inverse);
        if (total != 0) weight /= total;
        entry[2 + pixel - first] = (int)((weight < 0 ? -0.5 : 0.5) + weight * (1 << PRECISION));
    }
}

__device__ byte to_byte(int sum) {
    const int level = sum >> PRECISION;
    return level < 0 ? 0 : level > 255 ? 255 : level;
}

// Grid: kept columns or rows in blocks, pictures, 2 (across and down).
extern "C" __global__ void make_weights(
    const Picture* pictures, int* weights, int filter, double support
) {
    const Picture picture = pictures[blockIdx.y];
    const integer index = (integer)blockIdx.x * blockDim.x + threadIdx.x;
    if (blockIdx.z == 0) {
        if (index >= picture.right - picture.left) return;
        int* entry = weights + picture.across + index * (2 + picture.taps_across);
        write_weights(
            entry, picture.width, picture.resized_width, picture.left + index, filter, support);
    } else {
        if (index >= picture.bottom - picture.top) return;
        int* entry = weights + picture.down + index * (2 + picture.taps_down);
        write_weights(
            entry, picture.height, picture.resized_height, picture.top + index, filter, support);
    }
}

// Grid: kept columns and rows of the source in blocks, pictures.
extern "C" __global__ void resize_across(
    const Picture* pictures, const int* weights, byte* between
) {
    const Picture picture = pictures[blockIdx.z];
    const integer column = (integer)blockIdx.x * blockDim.x + threadIdx.x;
    const integer row = (integer)blockIdx.y * blockDim.y + threadIdx.y;
    const integer columns = picture.right - picture.left;
    if (column >= columns || row >= picture.rows) return;
    const int* entry = weights + picture.across + column * (2 + picture.taps_across);
    const byte* pixel = (const byte*)picture.source
        + (picture.first_row + row) * picture.step_down + entry[0] * picture.step_across;
    int red = 1 << (PRECISION - 1), green = red, blue = red;
    for (int tap = 0; tap < entry[1]; ++tap) {
        const int weight = entry[2 + tap];
        red += pixel[0] * weight;
        green += pixel[1] * weight;
        blue += pixel[2] * weight;
        pixel += picture.step_across;
    }
    byte* result = between + picture.between + (row * columns + column) * CHANNELS;
    result[0] = to_byte(red);
    result[1] = to_byte(green);
    result[2] = to_byte(blue);
}

// Grid: columns and rows of the crop in blocks, pictures. `fill` is 0xBBGGRR; with one channel the
// result is grey, as Pillow's `convert("L")` computes it (ITU-R BT.601).
extern "C" __global__ void resize_down(
    const Picture* pictures, const int* weights, const byte* between, byte* target,
    int crop_width, int crop_height, int channels, int fill
) {
    const Picture picture = pictures[blockIdx.z];
    const integer x = (integer)blockIdx.x * blockDim.x + threadIdx.x;
    const integer y = (integer)blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= crop_width || y >= crop_height) return;
    const integer columns = picture.right - picture.left;
    const integer column = x - picture.place_left, line = y - picture.place_top;
    byte level[CHANNELS] = {(byte)fill, (byte)(fill >> 8), (byte)(fill >> 16)};
    if (column >= 0 && column < columns && line >= 0 && line < picture.bottom - picture.top) {
        const int* entry = weights + picture.down + line * (2 + picture.taps_down);
        const byte* pixel = between + picture.between
            + ((entry[0] - picture.first_row) * columns + column) * CHANNELS;
        int red = 1 << (PRECISION - 1), green = red, blue = red;
        for (int tap = 0; tap < entry[1]; ++tap) {
            const int weight = entry[2 + tap];
            red += pixel[0] * weight;
            green += pixel[1] * weight;
            blue += pixel[2] * weight;
            pixel += columns * CHANNELS;
        }
        level[0] = to_byte(red);
        level[1] = to_byte(green);
        level[2] = to_byte(blue);
    }
    byte* result = target + picture.target
        + y * crop_width * channels + x * picture.target_step;
    if (channels == 1) {
        result[0] = (level[0] * 19595 + level[1] * 38470 + level[2] * 7471 + 0x8000) >> 16;
    } else {
        result[0] = level[0];
        result[1] = level[1];
        result[2] = level[2];
    }
}

// Counts the pixels of the last stored row that are not the grey of missing ones. `rows` has, for
// each image, the address of the row, its pixels, and the bytes from one to the next. Grid: images.
extern "C" __global__ void count_colours(const integer* rows, int* counts) {
    const integer* row = rows + 3 * blockIdx.x;
    for (integer column = threadIdx.x; column < row[1]; column += blockDim.x) {
        const byte* pixel = (const byte*)row[0] + column * row[2];
        if (pixel[0] != GREY || pixel[1] != GREY || pixel[2] != GREY) counts[blockIdx.x] = 1;
    }
}
