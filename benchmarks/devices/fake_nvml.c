/* A libnvidia-ml.so.1 with three GPUs, so that the real pynvml runs where there is no driver.
 *
 * What they are like is read from the file named by FAKE_NVML_SCRIPT at every call, so that faults can be made while
 * it is in use. A line of it is "GPU KEY VALUE", with the keys:
 *
 *     temperature  degrees Celsius; 45 if not given
 *     used         memory in use, in MB; 20000 if not given
 *     ecc          uncorrectable memory errors since the last reset
 *     error        the NVML error that every question about the GPU is answered with, such as 15 (GPU is lost)
 *     mute         1: it knows neither its utilisation nor its processes, and may not be asked for its name
 *     uuid         the digit that its UUID begins with; its index if not given
 *     xid          an XID error; told once to who listens when the line comes
 *
 * With FAKE_NVML_LOOKS, each look at a GPU appends a line "GPU SECONDS" to that file. Structures as in nvml.h.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, INSUFFICIENT_SIZE = 7, TIMEOUT = 10, LOST = 15 };
enum { GPUS = 3 };

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilization_t;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gpu_instance, compute_instance; } process_t;
typedef struct { int *device; unsigned long long type, data; unsigned int gpu_instance, compute_instance; } event_t;

static int gpus[GPUS] = {0, 1, 2};
static int listening[GPUS];
static int events, told; /* the event set; the lines with XID errors that it has told */

/* The last value of a key of a GPU in the script, or what it is if not given. */
static long scripted(int gpu, const char *key, long otherwise) {
    const char *path = getenv("FAKE_NVML_SCRIPT");
    FILE *file = path ? fopen(path, "r") : NULL;
    int index;
    long value;
    char found[32];
    while (file && fscanf(file, "%d %31s %ld", &index, found, &value) == 3)
        if (index == gpu && strcmp(found, key) == 0) otherwise = value;
    if (file) fclose(file);
    return otherwise;
}

static int failure(const int *gpu) { return (int)scripted(*gpu, "error", SUCCESS); }

static void note(int gpu) {
    const char *path = getenv("FAKE_NVML_LOOKS");
    int file = path ? open(path, O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;
    if (file < 0) return;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    dprintf(file, "%d %lld.%06ld\n", gpu, (long long)now.tv_sec, now.tv_nsec / 1000);
    close(file);
}

int nvmlInitWithFlags(unsigned int flags) { (void)flags; return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code == LOST ? "GPU is lost" : "some error"; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = GPUS; return SUCCESS; }
int nvmlDeviceGetIndex(const int *gpu, unsigned int *index) { *index = (unsigned int)*gpu; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, int **gpu) {
    if (index >= GPUS) return INVALID;
    *gpu = &gpus[index];
    note(gpus[index]);
    return failure(*gpu);
}

int nvmlDeviceGetName(const int *gpu, char *name, unsigned int length) {
    if (scripted(*gpu, "mute", 0)) return NO_PERMISSION;
    snprintf(name, length, "Fake GPU %d", *gpu);
    return failure(gpu);
}

int nvmlDeviceGetUUID(const int *gpu, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-%ld0000000-fake", scripted(*gpu, "uuid", *gpu));
    return failure(gpu);
}

int nvmlDeviceGetMemoryInfo(const int *gpu, memory_t *memory) {
    memory->total = 80000000000ULL;
    memory->used = (unsigned long long)scripted(*gpu, "used", 20000) * 1000000ULL;
    memory->free = memory->total - memory->used;
    return failure(gpu);
}

int nvmlDeviceGetTemperature(const int *gpu, int sensor, unsigned int *celsius) {
    (void)sensor;
    *celsius = (unsigned int)scripted(*gpu, "temperature", 45);
    return failure(gpu);
}

int nvmlDeviceGetUtilizationRates(const int *gpu, utilization_t *rates) {
    if (scripted(*gpu, "mute", 0)) return NOT_SUPPORTED;
    rates->gpu = 50;
    rates->memory = 10;
    return failure(gpu);
}

int nvmlDeviceGetTotalEccErrors(const int *gpu, int type, int counter, unsigned long long *count) {
    (void)type;
    (void)counter;
    *count = (unsigned long long)scripted(*gpu, "ecc", 0);
    return failure(gpu);
}

int nvmlDeviceGetComputeRunningProcesses_v3(const int *gpu, unsigned int *count, process_t *found) {
    if (scripted(*gpu, "mute", 0)) return NOT_SUPPORTED;
    if (*count < 1) { *count = 1; return INSUFFICIENT_SIZE; }
    memset(found, 0, sizeof *found);
    found[0].pid = 4711;
    found[0].used = 15000000000ULL;
    *count = 1;
    return failure(gpu);
}


/* How many XID errors the script has; the one with that number goes to event, if it is there. */
static int xids(int number, event_t *event) {
    const char *path = getenv("FAKE_NVML_SCRIPT");
    FILE *file = path ? fopen(path, "r") : NULL;
    int index, count = 0;
    long value;
    char found[32];
    while (file && fscanf(file, "%d %31s %ld", &index, found, &value) == 3)
        if (strcmp(found, "xid") == 0 && count++ == number)
            *event = (event_t){.device = &gpus[index], .type = 8, .data = (unsigned long long)value};
    if (file) fclose(file);
    return count;
}

int nvmlEventSetCreate(int **set) {
    told = xids(-1, NULL); /* what was before is told to nobody */
    *set = &events;
    return SUCCESS;
}

int nvmlEventSetFree(const int *set) { (void)set; memset(listening, 0, sizeof listening); return SUCCESS; }

int nvmlDeviceRegisterEvents(const int *gpu, unsigned long long types, const int *set) {
    (void)types;
    (void)set;
    listening[*gpu] = 1;
    return failure(gpu);
}

int nvmlEventSetWait_v2(const int *set, event_t *event, unsigned int timeout_ms) {
    (void)set;
    (void)timeout_ms; /* only ever asked not to wait */
    while (told < xids(told, event))
        if (told++, listening[*event->device]) return SUCCESS;
    return TIMEOUT;
}
