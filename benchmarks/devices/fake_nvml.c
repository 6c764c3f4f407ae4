/* A libnvidia-ml.so.1 with a few GPUs, so that the real pynvml runs where there is no driver.
 *
 * There are FAKE_NVML_GPUS of them, 3 if not given. What they are like is read from the file named by FAKE_NVML_SCRIPT at
 * every call, so that faults can be made while it is in use. A line of it is "GPU KEY VALUE", with the keys:
 *
 *     temperature  degrees Celsius; 45 if not given
 *     used         memory in use, in MB; 20000 if not given
 *     ecc          uncorrectable memory errors since the last reset
 *     error        the NVML error that every question about the GPU is answered with, such as 15 (GPU is lost)
 *     fail:NAME    the NVML error of one question: handle, name, uuid, memory, temperature, utilisation, ecc, processes
 *     mute         1: it knows neither its utilisation nor its processes, and may not be asked for its name
 *     hang         1: no question about it returns before this is 0 again; its handle and UUID are had all the same
 *     hang:NAME    the same of one question
 *     gone         1: it has left the enumeration, and those behind it move up
 *     place        where it sorts in the enumeration; its number if not given
 *     uuid         the digit that its UUID begins with; its number if not given
 *     xid          an XID error; told once to each who listens when the line comes
 *
 * As GPU -1 stands the library itself: "init" is the error of nvmlInit, "hang" 1 keeps nvmlDeviceGetCount from returning,
 * "delay" is how many milliseconds every call takes.
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
enum { GPUS = 16, ITSELF = -1, SETS = 256 };

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilization_t;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gpu_instance, compute_instance; } process_t;
typedef struct { int *device; unsigned long long type, data; unsigned int gpu_instance, compute_instance; } event_t;

typedef struct { int used, gpu, told; } events_t; /* a set: whom it hears, the XID errors in the script it is past */

static int gpus[GPUS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static events_t sets[SETS];

static int count(void) {
    const char *given = getenv("FAKE_NVML_GPUS");
    return given ? atoi(given) : 3;
}

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

static void pause_ms(long ms) {
    struct timespec length = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    if (ms > 0) nanosleep(&length, NULL);
}

/* What a question about a GPU is answered with, when it is. */
static int failure(const int *gpu, const char *question) {
    char one[32], hangs[32];
    snprintf(one, sizeof one, "fail:%s", question);
    snprintf(hangs, sizeof hangs, "hang:%s", question);
    int located = strcmp(question, "handle") == 0 || strcmp(question, "uuid") == 0;
    pause_ms(scripted(ITSELF, "delay", 0));
    while ((!located && scripted(*gpu, "hang", 0)) || scripted(*gpu, hangs, 0)) pause_ms(20);
    return (int)scripted(*gpu, one, scripted(*gpu, "error", SUCCESS));
}

/* The GPU at a place in the enumeration; NULL beyond its end. */
static int *at_place(unsigned int place) {
    int ordered[GPUS], known = 0;
    for (int gpu = 0; gpu < count(); gpu++) {
        if (scripted(gpu, "gone", 0)) continue;
        int slot = known++;
        for (; slot > 0 && scripted(ordered[slot - 1], "place", ordered[slot - 1]) > scripted(gpu, "place", gpu); slot--)
            ordered[slot] = ordered[slot - 1];
        ordered[slot] = gpu;
    }
    return place < (unsigned int)known ? &gpus[ordered[place]] : NULL;
}

static void note(int gpu) {
    const char *path = getenv("FAKE_NVML_LOOKS");
    int file = path ? open(path, O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;
    if (file < 0) return;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    dprintf(file, "%d %lld.%06ld\n", gpu, (long long)now.tv_sec, now.tv_nsec / 1000);
    close(file);
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    pause_ms(scripted(ITSELF, "delay", 0));
    return (int)scripted(ITSELF, "init", SUCCESS);
}

int nvmlShutdown(void) { memset(sets, 0, sizeof sets); return SUCCESS; }
const char *nvmlErrorString(int code) { return code == LOST ? "GPU is lost" : "some error"; }

int nvmlDeviceGetCount_v2(unsigned int *found) {
    pause_ms(scripted(ITSELF, "delay", 0));
    while (scripted(ITSELF, "hang", 0)) pause_ms(20);
    for (*found = 0; at_place(*found); (*found)++) {}
    return (int)scripted(ITSELF, "init", SUCCESS);
}

int nvmlDeviceGetIndex(const int *gpu, unsigned int *index) {
    for (*index = 0; at_place(*index); (*index)++)
        if (at_place(*index) == gpu) return SUCCESS;
    return LOST;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, int **gpu) {
    if ((*gpu = at_place(index)) == NULL) return INVALID;
    note(**gpu);
    return failure(*gpu, "handle");
}

int nvmlDeviceGetName(const int *gpu, char *name, unsigned int length) {
    if (scripted(*gpu, "mute", 0)) return NO_PERMISSION;
    snprintf(name, length, "Fake GPU %d", *gpu);
    return failure(gpu, "name");
}

int nvmlDeviceGetUUID(const int *gpu, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-%ld0000000-fake", scripted(*gpu, "uuid", *gpu));
    return failure(gpu, "uuid");
}

int nvmlDeviceGetMemoryInfo(const int *gpu, memory_t *memory) {
    memory->total = 80000000000ULL;
    memory->used = (unsigned long long)scripted(*gpu, "used", 20000) * 1000000ULL;
    memory->free = memory->total - memory->used;
    return failure(gpu, "memory");
}

int nvmlDeviceGetTemperature(const int *gpu, int sensor, unsigned int *celsius) {
    (void)sensor;
    *celsius = (unsigned int)scripted(*gpu, "temperature", 45);
    return failure(gpu, "temperature");
}

int nvmlDeviceGetUtilizationRates(const int *gpu, utilization_t *rates) {
    if (scripted(*gpu, "mute", 0)) return NOT_SUPPORTED;
    rates->gpu = 50;
    rates->memory = 10;
    return failure(gpu, "utilisation");
}

int nvmlDeviceGetTotalEccErrors(const int *gpu, int type, int counter, unsigned long long *count) {
    (void)type;
    (void)counter;
    *count = (unsigned long long)scripted(*gpu, "ecc", 0);
    return failure(gpu, "ecc");
}

int nvmlDeviceGetComputeRunningProcesses_v3(const int *gpu, unsigned int *count, process_t *found) {
    if (scripted(*gpu, "mute", 0)) return NOT_SUPPORTED;
    if (*count < 1) { *count = 1; return INSUFFICIENT_SIZE; }
    memset(found, 0, sizeof *found);
    found[0].pid = 4711;
    found[0].used = 15000000000ULL;
    *count = 1;
    return failure(gpu, "processes");
}

/* How many XID errors the script has; the one with that number goes to event, if it is there. */
static int xids(int number, event_t *event) {
    const char *path = getenv("FAKE_NVML_SCRIPT");
    FILE *file = path ? fopen(path, "r") : NULL;
    int index, found = 0;
    long value;
    char key[32];
    while (file && fscanf(file, "%d %31s %ld", &index, key, &value) == 3)
        if (strcmp(key, "xid") == 0 && found++ == number)
            *event = (event_t){.device = &gpus[index], .type = 8, .data = (unsigned long long)value};
    if (file) fclose(file);
    return found;
}

int nvmlEventSetCreate(events_t **set) {
    for (int one = 0; one < SETS; one++) {
        if (sets[one].used) continue;
        /* what was before is told to nobody */
        sets[one] = (events_t){.used = 1, .gpu = ITSELF, .told = xids(-1, NULL)};
        *set = &sets[one];
        return SUCCESS;
    }
    return INSUFFICIENT_SIZE;
}

int nvmlEventSetFree(events_t *set) { set->used = 0; return SUCCESS; }

int nvmlDeviceRegisterEvents(const int *gpu, unsigned long long types, events_t *set) {
    (void)types;
    set->gpu = *gpu;
    return failure(gpu, "events");
}

int nvmlEventSetWait_v2(events_t *set, event_t *event, unsigned int timeout_ms) {
    (void)timeout_ms; /* only ever asked not to wait */
    if (set->gpu != ITSELF && scripted(set->gpu, "error", SUCCESS) == LOST) return LOST;
    while (set->told < xids(set->told, event))
        if (set->told++, *event->device == set->gpu) return SUCCESS;
    return TIMEOUT;
}
