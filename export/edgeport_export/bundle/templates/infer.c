/* Classify an image with a model of this folder: ONNX Runtime's C API and nothing else.

       make ORT=/path/to/onnxruntime     (a folder with include/ and lib/)
       ./infer IMAGE [-m MODEL.onnx] [-k K]   (PPM or PGM)
       ./infer PIXELS -s WIDTHxHEIGHT    (raw 8-bit pixels of CHANNELS values, row by row)

   The model takes pixels of any size and holds the preprocessing, so that there is none here; an image must be upright.
   EdgePort wrote this file when it exported the model. It is yours to change and to copy. */

#define _POSIX_C_SOURCE 200112L /* setenv */

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <onnxruntime_c_api.h>

enum { MULTICLASS, BINARY, MULTILABEL };

/* BEGIN CONSTANTS */
#define MODEL "model.fp32.in-graph.onnx"
#define OUTPUT "logits"
#define TASK MULTICLASS
#define NUM_OUTPUTS 2
#define COVERED_HEIGHT 256 /* the model makes the image as small as covers these pixels; 0: it does not */
#define COVERED_WIDTH 256
#define CHANNELS 3 /* that the model takes: 3 is RGB, 4 is RGBA */
#define BITS 16 /* of the values of a PGM whose maximum is 65535, how many are in use; 0: 16 */
static const char *const LABELS[] = {"zero", "one"};
static const double THRESHOLDS[NUM_OUTPUTS] = {0, 0};
/* END CONSTANTS */

#define MAX_PIXELS 89478485L

static const OrtApi *ort;

static void fail(const char *what, const char *why) {
    fprintf(stderr, "error: %s: %s\n", what, why);
    exit(1);
}

static void check(const char *what, OrtStatus *status) {
    if (status != NULL) fail(what, ort->GetErrorMessage(status));
}

/* The next number of a header; comments run from # to the end of the line. */
static long number(FILE *file, const char *path) {
    int c = fgetc(file);
    while (c == ' ' || (c >= '\t' && c <= '\r') || c == '#') {
        if (c == '#')
            while (c != '\n' && c != EOF) c = fgetc(file);
        c = fgetc(file);
    }
    long value = 0;
    if (c < '0' || c > '9') fail(path, "is not a PPM or PGM file (P6 or P5)");
    for (; c >= '0' && c <= '9'; c = fgetc(file))
        if ((value = 10 * value + (c - '0')) > MAX_PIXELS) fail(path, "has a number in its header that is too large");
    return value; /* one character of white space behind the number is read as well */
}

/* 8 bits of a value, as Pillow and EdgePort take them. */
static uint8_t level(long value, long maximum, int is_grey, const char *path) {
    const int used = BITS > 0 ? BITS : 16;
    if (value > maximum) value = maximum;
    if (maximum == 65535 && is_grey) {
        if (value >> used != 0) fail(path, "has values of more bits than BITS says");
        return (uint8_t)(value >> (used - 8));
    }
    if (maximum == 65535 && used < 16) fail(path, "has colours of 16 bits; save it with 8 bits");
    if (maximum > 255 && is_grey) return (uint8_t)((long)rint((double)value / (double)maximum * 65535) >> 8);
    return maximum == 255 ? (uint8_t)value : (uint8_t)rint((double)value / (double)maximum * 255);
}

static uint8_t *read_pixels(const char *path, long *width, long *height) {
    FILE *file = fopen(path, "rb");
    long maximum = 255;
    const int is_file = *width == 0;
    int is_grey = 0;
    if (file == NULL) fail(path, strerror(errno));
    if (is_file) {
        const int kind = fgetc(file) == 'P' ? fgetc(file) : EOF;
        if (kind != '5' && kind != '6') fail(path, "is not a PPM or PGM file (P6 or P5); raw pixels need -s");
        is_grey = kind == '5';
        *width = number(file, path);
        *height = number(file, path);
        maximum = number(file, path);
        if (maximum < 1 || maximum > 65535) fail(path, "has a maximum that is not from 1 to 65535");
    }
    if (*width < 1 || *height < 1 || *width > MAX_PIXELS / *height) fail(path, "has no pixels, or too many");
    const double across = (double)*width / (double)*height;
    if (fmax(across * COVERED_HEIGHT * COVERED_HEIGHT, COVERED_WIDTH / across * COVERED_WIDTH) > MAX_PIXELS)
        fail(path, "is too narrow: it would have too many pixels after the resize");
    const size_t size = (size_t)*width * (size_t)*height * CHANNELS;
    uint8_t *pixels = malloc(size);
    if (pixels == NULL) fail(path, "not enough memory");
    for (size_t i = 0; i < size; i++) {
        if (is_file && i % CHANNELS == 3) {
            pixels[i] = 255; /* PPM and PGM have no alpha */
            continue;
        }
        if (is_grey && i % CHANNELS != 0) {
            pixels[i] = pixels[i - 1];
            continue;
        }
        const int high = maximum > 255 ? fgetc(file) : 0, low = fgetc(file);
        if (high == EOF || low == EOF) fail(path, "is cut short");
        pixels[i] = level(256L * high + low, maximum, is_grey, path);
    }
    if (fgetc(file) != EOF) fail(path, "is longer than its size says");
    fclose(file);
    return pixels;
}

/* ONNX Runtime collects usage data unless told not to. It writes to your cache folder as soon as there is an environment,
   so that the API's switch alone comes too late. A value that you set is kept. */
static OrtEnv *quiet_environment(void) {
    const int is_chosen = getenv("ORT_DISABLE_TELEMETRY") != NULL;
    OrtEnv *env;
    setenv("ORT_DISABLE_TELEMETRY", "1", 0);
    check("ONNX Runtime", ort->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "infer", &env));
    if (!is_chosen) check("ONNX Runtime", ort->DisableTelemetryEvents(env));
    return env;
}

static void run(const char *model, uint8_t *pixels, long width, long height, float *outputs) {
    OrtEnv *env = quiet_environment();
    OrtSessionOptions *options;
    OrtSession *session;
    OrtMemoryInfo *memory;
    OrtValue *image, *result = NULL;
    const int64_t shape[] = {height, width, CHANNELS};
    const char *const input = "image", *const output = OUTPUT;
    check("ONNX Runtime", ort->CreateSessionOptions(&options));
    check(model, ort->CreateSession(env, model, options, &session));
    check("memory", ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    check("the image", ort->CreateTensorWithDataAsOrtValue(memory, pixels, (size_t)(width * height * CHANNELS), shape, 3,
                                                           ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &image));
    check(model, ort->Run(session, NULL, &input, (const OrtValue *const *)&image, 1, &output, 1, &result));
    OrtTensorTypeAndShapeInfo *info;
    ONNXTensorElementDataType type;
    size_t count;
    float *values;
    check(model, ort->GetTensorTypeAndShape(result, &info));
    check(model, ort->GetTensorShapeElementCount(info, &count));
    check(model, ort->GetTensorElementType(info, &type));
    if (count != NUM_OUTPUTS || type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
        fail(model, "is another model: its outputs do not match this program");
    check(model, ort->GetTensorMutableData(result, (void **)&values));
    memcpy(outputs, values, sizeof(float) * NUM_OUTPUTS);
    ort->ReleaseTensorTypeAndShapeInfo(info);
    ort->ReleaseValue(result);
    ort->ReleaseValue(image);
    ort->ReleaseMemoryInfo(memory);
    ort->ReleaseSession(session);
    ort->ReleaseSessionOptions(options);
    ort->ReleaseEnv(env);
}

/* Softmax over the classes, or a sigmoid each. */
static void probabilities(const float *outputs, double *scores) {
    const int are_logits = strcmp(OUTPUT, "logits") == 0;
    double largest = -INFINITY, sum = 0;
    for (int i = 0; i < NUM_OUTPUTS; i++) {
        if (!isfinite(outputs[i])) fail("the model", "returned NaN or infinite values");
        largest = fmax(largest, outputs[i]);
    }
    for (int i = 0; i < NUM_OUTPUTS; i++) {
        scores[i] = outputs[i];
        if (are_logits) scores[i] = TASK == MULTICLASS ? exp(scores[i] - largest) : 1 / (1 + exp(-scores[i]));
        sum += scores[i];
    }
    for (int i = 0; are_logits && TASK == MULTICLASS && i < NUM_OUTPUTS; i++) scores[i] /= sum;
}

/* A star marks what the model decides. */
static void print_class(int index, double score, int is_decided) {
    if (LABELS[index] != NULL)
        printf("%s", LABELS[index]);
    else
        printf("%d", index);
    printf("  %.4f%s\n", score, is_decided ? "  *" : "");
}

static void print_best(double *scores, long k) {
    if (TASK == BINARY) {
        const int decided = scores[0] >= THRESHOLDS[0];
        const double both[] = {1 - scores[0], scores[0]};
        print_class(decided, both[decided], 1);
        if (k > 1) print_class(!decided, both[!decided], 0);
        return;
    }
    for (long n = 0; n < k && n < NUM_OUTPUTS; n++) {
        int best = 0;
        for (int i = 1; i < NUM_OUTPUTS; i++)
            if (scores[i] > scores[best]) best = i;
        print_class(best, scores[best], (TASK == MULTILABEL || n == 0) && scores[best] >= THRESHOLDS[best]);
        scores[best] = -1;
    }
}

int main(int argc, char **argv) {
    const char *const usage = "usage: infer IMAGE [-m MODEL.onnx] [-k K] [-s WIDTHxHEIGHT for raw pixels]";
    const char *image = NULL, *model = MODEL;
    long width = 0, height = 0, k = 5;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        char end;
        if (strcmp(argv[i], "-m") == 0 && value[0] != '\0') {
            model = argv[++i];
        } else if (strcmp(argv[i], "-k") == 0) {
            if (sscanf(value, "%ld%c", &k, &end) != 1 || k < 1) fail("-k", usage);
            i++;
        } else if (strcmp(argv[i], "-s") == 0) {
            if (sscanf(value, "%ldx%ld%c", &width, &height, &end) != 2 || width < 1) fail("-s", usage);
            i++;
        } else if (argv[i][0] != '-' && image == NULL) {
            image = argv[i];
        } else {
            fail(argv[i], usage);
        }
    }
    if (image == NULL) fail("no image", usage);
    ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (ort == NULL) fail("ONNX Runtime", "this library is older than the headers");
    static float outputs[NUM_OUTPUTS];
    static double scores[NUM_OUTPUTS];
    uint8_t *pixels = read_pixels(image, &width, &height);
    run(model, pixels, width, height, outputs);
    free(pixels);
    probabilities(outputs, scores);
    print_best(scores, k);
    return 0;
}
