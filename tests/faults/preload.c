/* Preloaded into a process under test (LD_PRELOAD), for the files below one folder:
 *
 *   EDGECV_FAULTS_FOLDER   the folder, an absolute path
 *   EDGECV_FAULTS_LOG      records every change of a file there, in order, so that the disk can be rebuilt at any moment
 *   EDGECV_FAULTS_CONTROL  a file of two 32-bit integers, read at every call: [0] the errno with which every change fails,
 *                          0 for none (a flush does not fail with ENOSPC); [1] milliseconds that every flush takes longer
 *
 * A record is a line "OP OFFSET LENGTH PATH\n" followed by LENGTH bytes: W write, T truncate to OFFSET, S flushed,
 * U unlink, C created or emptied, R renamed (the bytes are the new path). tests/faults/disk_images.py reads them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static size_t folder_length;
static int log_fd = -1;
static volatile int32_t *control;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void start(void) {
    const char *where = getenv("EDGECV_FAULTS_FOLDER");
    const char *log = getenv("EDGECV_FAULTS_LOG");
    const char *steer = getenv("EDGECV_FAULTS_CONTROL");
    if (!where) return;
    snprintf(folder, sizeof folder, "%s/", where);
    folder_length = strlen(folder);
    if (log) log_fd = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (steer) {
        int fd = REAL(open)(steer, O_RDONLY | O_CLOEXEC);
        void *map = fd < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED) control = map;
        if (fd >= 0) close(fd);
    }
}

/* The path below the folder, or NULL for anything else. */
static const char *inside(const char *path) {
    return folder_length && path && !strncmp(path, folder, folder_length) ? path + folder_length : NULL;
}

static const char *inside_fd(int fd, char *space) {
    char link[64];
    if (!folder_length) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, space, PATH_MAX - 1);
    if (length <= 0) return NULL;
    space[length] = 0;
    return inside(space);
}

static int refused(void) {
    if (!control || !control[0]) return 0;
    errno = control[0];
    return 1;
}

static void put(const void *data, size_t length) {
    const char *at = data;
    while (length > 0) {
        ssize_t done = REAL(write)(log_fd, at, length);
        if (done <= 0) abort();
        at += done;
        length -= (size_t)done;
    }
}

static void record(char op, const char *path, off_t offset, const void *data, size_t length) {
    if (log_fd < 0) return;
    char line[PATH_MAX + 64];
    int saved = errno;
    put(line, (size_t)snprintf(line, sizeof line, "%c %lld %zu %s\n", op, (long long)offset, length, path));
    if (length) put(data, length);
    errno = saved;
}

static void stall(void) {
    int32_t ms = control ? control[1] : 0;
    struct timespec wait = {ms / 1000, (ms % 1000) * 1000000L};
    if (ms > 0) nanosleep(&wait, NULL);
}

ssize_t write(int fd, const void *data, size_t length) {
    char space[PATH_MAX];
    const char *path = inside_fd(fd, space);
    if (!path) return REAL(write)(fd, data, length);
    if (refused()) return -1;
    pthread_mutex_lock(&order);
    struct stat now;
    off_t at = fcntl(fd, F_GETFL) & O_APPEND && !fstat(fd, &now) ? now.st_size : lseek(fd, 0, SEEK_CUR);
    ssize_t done = REAL(write)(fd, data, length);
    if (done > 0) record('W', path, at, data, (size_t)done);
    pthread_mutex_unlock(&order);
    return done;
}

#define WRITES_AT(name, type)                                                 \
    ssize_t name(int fd, const void *data, size_t length, type at) {          \
        char space[PATH_MAX];                                                 \
        const char *path = inside_fd(fd, space);                              \
        if (!path) return REAL(name)(fd, data, length, at);                   \
        if (refused()) return -1;                                             \
        pthread_mutex_lock(&order);                                           \
        ssize_t done = REAL(name)(fd, data, length, at);                      \
        if (done > 0) record('W', path, at, data, (size_t)done);              \
        pthread_mutex_unlock(&order);                                         \
        return done;                                                          \
    }
WRITES_AT(pwrite, off_t)
WRITES_AT(pwrite64, off64_t)

#define TRUNCATES(name, type)                                                 \
    int name(int fd, type length) {                                           \
        char space[PATH_MAX];                                                 \
        const char *path = inside_fd(fd, space);                              \
        if (!path) return REAL(name)(fd, length);                             \
        if (refused()) return -1;                                             \
        pthread_mutex_lock(&order);                                           \
        int code = REAL(name)(fd, length);                                    \
        if (!code) record('T', path, length, NULL, 0);                        \
        pthread_mutex_unlock(&order);                                         \
        return code;                                                          \
    }
TRUNCATES(ftruncate, off_t)
TRUNCATES(ftruncate64, off64_t)

#define FLUSHES(name)                                                         \
    int name(int fd) {                                                        \
        char space[PATH_MAX];                                                 \
        const char *path = inside_fd(fd, space);                              \
        if (!path) return REAL(name)(fd);                                     \
        stall();                                                              \
        if (control && control[0] != ENOSPC && refused()) return -1;                                             \
        int code = REAL(name)(fd);                                            \
        pthread_mutex_lock(&order);                                           \
        if (!code) record('S', path, 0, NULL, 0);                             \
        pthread_mutex_unlock(&order);                                         \
        return code;                                                          \
    }
FLUSHES(fsync)
FLUSHES(fdatasync)

#define ALLOCATES(name, type)                                                 \
    int name(int fd, type at, type length) {                                  \
        char space[PATH_MAX];                                                 \
        if (inside_fd(fd, space) && control && control[0]) return control[0]; \
        return REAL(name)(fd, at, length);                                    \
    }
ALLOCATES(posix_fallocate, off_t)
ALLOCATES(posix_fallocate64, off64_t)

int unlink(const char *name) {
    const char *path = inside(name);
    if (!path) return REAL(unlink)(name);
    if (control && control[0] == EROFS) return refused() ? -1 : 0;
    pthread_mutex_lock(&order);
    int code = REAL(unlink)(name);
    if (!code) record('U', path, 0, NULL, 0);
    pthread_mutex_unlock(&order);
    return code;
}

int rename(const char *from, const char *to) {
    const char *old = inside(from), *new = inside(to);
    if (!old || !new) return REAL(rename)(from, to);
    if (refused()) return -1;
    pthread_mutex_lock(&order);
    int code = REAL(rename)(from, to);
    if (!code) record('R', old, 0, new, strlen(new));
    pthread_mutex_unlock(&order);
    return code;
}

/* Opening for writing fails as well; creating and emptying are recorded. */
#define OPENS(name)                                                           \
    int name(const char *file, int flags, ...) {                              \
        va_list more;                                                         \
        va_start(more, flags);                                                \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                         \
        const char *path = inside(file);                                      \
        if (!path) return REAL(name)(file, flags, mode);                      \
        int missing = access(file, F_OK) != 0;                                \
        int changes = (flags & O_CREAT && missing) || flags & O_TRUNC;        \
        if (control && control[0] && (changes || (control[0] == EROFS && flags & (O_WRONLY | O_RDWR)))) \
            return refused() ? -1 : 0;                                        \
        pthread_mutex_lock(&order);                                           \
        int saved = errno, fd = REAL(name)(file, flags, mode);                \
        if (fd >= 0 && changes) record('C', path, 0, NULL, 0);                \
        if (fd >= 0) errno = saved;                                           \
        pthread_mutex_unlock(&order);                                         \
        return fd;                                                            \
    }
OPENS(open)
OPENS(open64)
