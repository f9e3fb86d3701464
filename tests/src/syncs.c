/* Stands between a process and the syncs of its disk. The file that SYNCS_CONTROL names says what they are like, in two
   numbers: the milliseconds that each takes longer, and whether it then syncs (1) or only says that it did (0). For each
   that was not what it would be without us, the file that SYNCS_STRUCK names grows by a byte. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Nobody has said anything: as if we were not here. */
static void control(int *milliseconds, int *syncs) {
    char words[32] = {0};
    const char *path = getenv("SYNCS_CONTROL");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    *milliseconds = 0;
    *syncs = 1;
    if (fd < 0)
        return;
    if (read(fd, words, sizeof words - 1) <= 0 || sscanf(words, "%d %d", milliseconds, syncs) != 2)
        abort();
    close(fd);
}

static void struck(void) {
    const char *path = getenv("SYNCS_STRUCK");
    int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (fd < 0 || write(fd, ".", 1) != 1)
        abort();
    close(fd);
}

static int sync_by(long call, int fd) {
    int milliseconds, syncs;
    control(&milliseconds, &syncs);
    if (milliseconds > 0) {
        struct timespec left = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
        while (nanosleep(&left, &left) != 0 && errno == EINTR)
            ;
    }
    if (milliseconds > 0 || !syncs)
        struck();
    return syncs ? syscall(call, fd) : 0;
}

int fdatasync(int fd) { return sync_by(SYS_fdatasync, fd); }
int fsync(int fd) { return sync_by(SYS_fsync, fd); }
