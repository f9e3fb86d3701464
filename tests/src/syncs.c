/* Stands between a process and the syncs of its disk. The file that SYNCS_CONTROL names says what they are like, in three
   numbers and a word: the milliseconds that each takes longer; whether it then syncs (1) or only says that it did (0); at
   which sync, counted from one, the process is killed instead (0: at none); and what the path of a file has in it whose
   syncs are held until the word is another (-: none are). For each sync that was not what it would be without us, the file
   that SYNCS_STRUCK names grows by a byte, and for each that is held, as soon as it is, the one that SYNCS_HELD names. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct control {
    int milliseconds, syncs, deadly;
    char held[32];
};

/* Nobody has said anything: as if we were not here. */
static struct control control(void) {
    struct control said = {0, 1, 0, "-"};
    char words[96] = {0};
    const char *path = getenv("SYNCS_CONTROL");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return said;
    if (read(fd, words, sizeof words - 1) <= 0 ||
        sscanf(words, "%d %d %d %31s", &said.milliseconds, &said.syncs, &said.deadly, said.held) != 4)
        abort();
    close(fd);
    return said;
}

static void note(const char *variable) {
    const char *path = getenv(variable);
    int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (fd < 0 || write(fd, ".", 1) != 1)
        abort();
    close(fd);
}

static int is_held(int fd) {
    char link[32], path[PATH_MAX] = {0};
    struct control said = control();
    if (strcmp(said.held, "-") == 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) < 0)
        abort();
    return strstr(path, said.held) != NULL;
}

static void pause_for(int milliseconds) {
    struct timespec left = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

static int sync_by(long call, int fd) {
    static atomic_int begun;
    int is_waiting = is_held(fd), number = atomic_fetch_add(&begun, 1) + 1;
    struct control said = control();
    if (number == said.deadly)
        kill(getpid(), SIGKILL);
    if (is_waiting)
        note("SYNCS_HELD");
    while (is_held(fd))
        pause_for(1);
    if (said.milliseconds > 0)
        pause_for(said.milliseconds);
    if (said.milliseconds > 0 || !said.syncs)
        note("SYNCS_STRUCK");
    return said.syncs ? syscall(call, fd) : 0;
}

int fdatasync(int fd) { return sync_by(SYS_fdatasync, fd); }
int fsync(int fd) { return sync_by(SYS_fsync, fd); }
