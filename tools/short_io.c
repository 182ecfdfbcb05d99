// For LD_PRELOAD: every second transfer of a file on a disk is interrupted by EINTR before it moves a byte, the others move
// between one byte and all that was asked; every second fsync is interrupted. All of it is what POSIX allows at any time.
// At its end the process writes what it met into the file $DSV3_SHORT_IO_LOG: "SHORTENED INTERRUPTED".
//
//   cc -shared -fPIC -o short_io.so tools/short_io.c -ldl
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static atomic_uint_fast64_t calls, shortened, interrupted;

// The kernel's own files are left out: a library that reads the processor's features from them may give up when it is
// interrupted, choose other kernels, and so compute other digits.
static int on_disk(int fd) {
  enum { kProc = 0x9fa0, kSys = 0x62656572 };
  struct stat status;
  struct statfs system;
  return fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && fstatfs(fd, &system) == 0 && system.f_type != kProc &&
         system.f_type != kSys;
}

// Whether this call of a thread is to be interrupted. By thread: else two threads could take turns such that one of them
// is interrupted for ever.
static int interrupts(void) {
  static _Thread_local unsigned turn;
  if (++turn % 2 == 0) return 0;
  ++interrupted;
  errno = EINTR;
  return 1;
}

static size_t some_of(size_t size) {
  if (size < 2) return size;
  uint64_t x = (++calls) * 0x9e3779b97f4a7c15u;
  x ^= x >> 32;
  const size_t some = 1 + x % size;
  if (some < size) ++shortened;
  return some;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t read(int fd, void* to, size_t size) {
  if (!on_disk(fd)) return NEXT(read)(fd, to, size);
  return interrupts() ? -1 : NEXT(read)(fd, to, some_of(size));
}
ssize_t write(int fd, const void* from, size_t size) {
  if (!on_disk(fd)) return NEXT(write)(fd, from, size);
  return interrupts() ? -1 : NEXT(write)(fd, from, some_of(size));
}
ssize_t pread(int fd, void* to, size_t size, off_t at) {
  return interrupts() ? -1 : NEXT(pread)(fd, to, some_of(size), at);
}
ssize_t pwrite(int fd, const void* from, size_t size, off_t at) {
  return interrupts() ? -1 : NEXT(pwrite)(fd, from, some_of(size), at);
}
// The same functions under their other names: off_t has 64 bits.
ssize_t pread64(int fd, void* to, size_t size, off64_t at) { return pread(fd, to, size, at); }
ssize_t pwrite64(int fd, const void* from, size_t size, off64_t at) { return pwrite(fd, from, size, at); }
int fsync(int fd) { return interrupts() ? -1 : NEXT(fsync)(fd); }

__attribute__((destructor)) static void report(void) {
  const char* path = getenv("DSV3_SHORT_IO_LOG");
  FILE* out = path == NULL ? NULL : fopen(path, "w");
  if (out == NULL) return;
  fprintf(out, "%llu %llu\n", (unsigned long long)shortened, (unsigned long long)interrupted);
  fclose(out);
}
