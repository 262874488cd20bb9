/* Fails one call on the files of a folder: the n-th write, fsync, rename or truncate after `fault_arm`, or the n-th read.

   how: 0 the call fails with EIO, 1 a write puts half of its bytes down and fails, 2 the process ends in its middle,
   3 a read fails with EIO. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[PATH_MAX];
static int left, how;

void fault_arm(const char *path, int n, int kind) {
    strncpy(folder, path, sizeof folder - 1);
    how = kind;
    __atomic_store_n(&left, n, __ATOMIC_SEQ_CST);
}

int fault_left(void) { return __atomic_load_n(&left, __ATOMIC_SEQ_CST); }

static int mine(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    return n > 0 && strncmp(path, folder, strlen(folder)) == 0;
}

static int counted(int reads) {
    if ((how == 3) != reads) return 0;
    if (__atomic_load_n(&left, __ATOMIC_SEQ_CST) <= 0) return 0;
    return __atomic_sub_fetch(&left, 1, __ATOMIC_SEQ_CST) == 0;
}

static int fail(void) {
    if (how == 2) _exit(9);
    errno = EIO;
    return -1;
}

#define REAL(call) static __typeof__(&call) real; if (!real) real = (__typeof__(&call))dlsym(RTLD_NEXT, #call)

ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at) {
    REAL(pwrite64);
    if (folder[0] && mine(fd) && counted(0)) { if (how) real(fd, b, n / 2, at); return fail(); }
    return real(fd, b, n, at);
}
ssize_t pwrite(int fd, const void *b, size_t n, off_t at) { return pwrite64(fd, b, n, at); }
ssize_t write(int fd, const void *b, size_t n) {
    REAL(write);
    if (folder[0] && mine(fd) && counted(0)) { if (how) real(fd, b, n / 2); return fail(); }
    return real(fd, b, n);
}
int fsync(int fd) {
    REAL(fsync);
    return folder[0] && mine(fd) && counted(0) ? fail() : real(fd);
}
int fdatasync(int fd) {
    REAL(fdatasync);
    return folder[0] && mine(fd) && counted(0) ? fail() : real(fd);
}
int ftruncate64(int fd, off64_t n) {
    REAL(ftruncate64);
    return folder[0] && mine(fd) && counted(0) ? fail() : real(fd, n);
}
int ftruncate(int fd, off_t n) { return ftruncate64(fd, n); }
int rename(const char *from, const char *to) {
    REAL(rename);
    return folder[0] && strncmp(to, folder, strlen(folder)) == 0 && counted(0) ? fail() : real(from, to);
}
ssize_t pread64(int fd, void *b, size_t n, off64_t at) {
    REAL(pread64);
    return folder[0] && mine(fd) && counted(1) ? fail() : real(fd, b, n, at);
}
ssize_t pread(int fd, void *b, size_t n, off_t at) { return pread64(fd, b, n, at); }
ssize_t read(int fd, void *b, size_t n) {
    REAL(read);
    return folder[0] && mine(fd) && counted(1) ? fail() : real(fd, b, n);
}
