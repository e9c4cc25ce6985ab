/* Let the clock of a process jump: preloaded, it adds the seconds that a file holds to the time.
 *
 * JUMPING_CLOCK names the file: one 64-bit number in the order of this machine. Only what Redis
 * reckons expiry with is replaced, and nothing here allocates, since its allocator asks for the time.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void open_offset(void) {
  const char *path = getenv("JUMPING_CLOCK");
  int fd = path ? open(path, O_RDONLY) : -1;
  if (fd >= 0) {
    void *map = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) offset = map;
    close(fd);
  }
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  int result = (int)syscall(SYS_gettimeofday, now, zone);
  if (result == 0 && now && offset) now->tv_sec += *offset;
  return result;
}
