/* A libnvidia-ml.so.1 with three GPUs, so that the real pynvml runs where there is no driver.
 *
 * GPU 0 is well; GPU 1 is hot, knows neither its utilisation nor its processes, and may not be asked for its
 * name; GPU 2 is lost when the file named by FAKE_NVML_LOST exists. Structures as in nvml.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4, INSUFFICIENT_SIZE = 7, LOST = 15 };

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilization_t;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gpu_instance, compute_instance; } process_t;

static int gpus[3] = {0, 1, 2};

static int lost(const int *gpu) {
    const char *file = getenv("FAKE_NVML_LOST");
    return *gpu == 2 && file && access(file, F_OK) == 0;
}

int nvmlInitWithFlags(unsigned int flags) { (void)flags; return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code == LOST ? "GPU is lost" : "some error"; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 3; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, int **gpu) {
    *gpu = &gpus[index];
    return SUCCESS;
}

int nvmlDeviceGetName(int *gpu, char *name, unsigned int length) {
    if (*gpu == 1) return NO_PERMISSION;
    snprintf(name, length, "Fake GPU %d", *gpu);
    return SUCCESS;
}

int nvmlDeviceGetUUID(int *gpu, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-%d0000000-fake", *gpu);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(int *gpu, memory_t *memory) {
    if (lost(gpu)) return LOST;
    memory->total = 80000000000ULL;
    memory->used = 20000000000ULL;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(int *gpu, int sensor, unsigned int *celsius) {
    (void)sensor;
    *celsius = *gpu == 1 ? 91 : 45;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(int *gpu, utilization_t *rates) {
    if (*gpu == 1) return NOT_SUPPORTED;
    rates->gpu = 50;
    rates->memory = 10;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(int *gpu, unsigned int *count, process_t *found) {
    if (*gpu == 1) return NOT_SUPPORTED;
    if (*count < 1) { *count = 1; return INSUFFICIENT_SIZE; }
    memset(found, 0, sizeof *found);
    found[0].pid = 4711;
    found[0].used = 15000000000ULL;
    *count = 1;
    return SUCCESS;
}
