/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a mount ends
 *
 * By umount(8), fusermount3 -u or `platter umount`: the kernel sends what it still holds, says good-bye, and ends the
 * connection. Or by a signal: then the first thing is to unmount just so, while the threads go on answering, because what
 * programs have written may still be in the kernel's page cache (writeback, mmap). While somebody uses the mount that
 * is refused; it is tried again for `grace` seconds, or until a second signal. Then the kernel is told to write
 * everything back (syncfs), the mount is taken off the tree, and the connection is cut: who still has files open gets
 * errors from now on, and nothing that was written before is lost.
 *
 * After that all disks are flushed and closed, and what fails is the exit status.
 *
 * Signals are taken by the main thread alone, from a signalfd; all other threads have them blocked.
 */
#include "fuse/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/loop.h"
#include "core/open.h"
#include "core/wait.h"
#include "fuse/log.h"
#include "fuse/mountpoint.h"
#include "fuse/notify.h"
#include "fuse/session.h"

/* While it is in use, unmounting is tried so often. */
#define RETRY_MS 200

struct server {
	const struct serve_request *request;
	char *path; /* resolved */
	dev_t device; /* of our mount: somebody may mount something else on its place later */
	struct mounted mounted;
	struct session *session;
	int signals;      /* signalfd */
	int pid_file;     /* created, and empty until the mount answers; -1: none */
	struct loop *loop; /* of the watchers */
	struct watcher *watchers;
	_Atomic bool ending; /* watchers are to go, and none is to come; set under `lock` */
	pthread_mutex_t lock;
};

/* ------------------------------------------------------------------ size changes */

/* Tells the kernel when a disk has another size than it believes. */
struct watcher {
	struct server *server;
	struct disk *disk;
	uint64_t inode;
	struct wait_group *left;
};

static void run_watcher(void *argument)
{
	struct watcher *w = argument;
	uint64_t size = disk_size(w->disk);

	while (!atomic_load(&w->server->ending)) {
		if (disk_wait_resize(w->disk, size, WAIT_FOREVER, &size))
			continue; /* cancelled: to look whether that is all */
		session_attributes_changed(w->server->session, w->inode);
	}
	wait_group_done(w->left);
}

/* On the loop of the watchers, which answers no request. */
static void run_forget(void *argument)
{
	struct watcher *w = argument;
	struct file_entry *e = &w->server->mounted.files.list[w->inode - 1];

	atomic_store(&e->is_forgotten, false); /* from here on it is too late for another one to be in this */
	session_entry_changed(w->server->session, e->parent + 1, e->name);
	wait_group_done(w->left);
}

static void forget(struct mounted *m, struct file_entry *e)
{
	struct server *s = (struct server *)((char *)m - offsetof(struct server, mounted));
	struct watcher *w = &s->watchers[e - m->files.list];

	/* The root of a mount of one disk has no name to be looked up by. */
	if (!*e->name)
		return;
	pthread_mutex_lock(&s->lock);
	if (!atomic_load(&s->ending)) {
		wait_group_add(w->left, 1);
		if (loop_spawn(s->loop, run_forget, w)) {
			wait_group_done(w->left);
			atomic_store(&e->is_forgotten, false);
		}
	}
	pthread_mutex_unlock(&s->lock);
}

/* A watcher for each disk whose size can change, and its windows. */
static int start_watchers(struct server *s, struct wait_group *left, struct error *err)
{
	struct files *files = &s->mounted.files;
	int status = loop_start(NULL, &s->loop, err);

	if (status)
		return status;
	s->watchers = calloc(files->count, sizeof(*s->watchers));
	if (!s->watchers)
		return error_set(err, -ENOMEM, "no memory");
	for (size_t i = 0; i < files->count; i++) {
		struct watcher *w = &s->watchers[i];

		if (files->list[i].kind != FILE_DISK)
			continue;
		*w = (struct watcher){s, file_disk(&files->list[i]), i + 1, left};
		wait_group_add(left, 1);
		if (loop_spawn(s->loop, run_watcher, w)) {
			wait_group_done(left);
			w->disk = NULL;
			return error_set(err, -ENOMEM, "no memory");
		}
	}
	return 0;
}

/* A wait that begins just now is cancelled by the next round. */
static void stop_watchers(struct server *s, struct wait_group *left)
{
	pthread_mutex_lock(&s->lock);
	atomic_store(&s->ending, true);
	pthread_mutex_unlock(&s->lock);
	while (atomic_load(&left->pending) > 0) {
		for (size_t i = 0; s->watchers && i < s->mounted.files.count; i++)
			if (s->watchers[i].disk)
				disk_cancel_resize_waits(s->watchers[i].disk);
		wait_sleep(1000000);
	}
	wait_group_wait(left);
	loop_finish(s->loop);
	free(s->watchers);
}

/* ------------------------------------------------------------------ before */

/* A folder for a folder of disks, a file for one disk. */
static int check_type(const char *path, bool single, struct error *err)
{
	struct stat st;

	if (stat(path, &st))
		return error_set_errno(err, -errno, "'%s'", path);
	if (single && S_ISDIR(st.st_mode))
		return error_set(err, -EISDIR, "'%s' is a folder: disks in it need names, NAME=SPEC", path);
	if (!single && !S_ISDIR(st.st_mode))
		return error_set(err, -ENOTDIR, "'%s' is no folder: over a file goes one disk, and its SPEC has no name",
				 path);
	if (single && !S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "'%s' is neither a folder nor a regular file", path);
	return 0;
}

/* The attributes of a dead mount's root may still be known, but an extended one is always asked for. */
static bool is_dead(const char *path)
{
	return getxattr(path, "user.platter.pid", NULL, 0) < 0 && errno == ENOTCONN;
}

static int find_path(struct server *s, struct error *err)
{
	bool single = s->request->table->count == 1 && *s->request->table->list[0].name == '\0';

	if (single && (s->request->control || s->request->partitions))
		return error_set(err, -EINVAL, "%s needs a folder of disks: FOLDER NAME=SPEC",
				 s->request->control ? "--control" : "--partitions");
	s->path = mountpoint_resolve(s->request->path, err);
	if (!s->path)
		return err && err->status ? err->status : -EINVAL;
	if (mountpoint_is_ours(s->path))
		return error_set(err, -EBUSY, "'%s' is a mount of platter already%s ('platter umount' takes it off)", s->path,
				 is_dead(s->path) ? ", though nobody serves it" : "");
	return check_type(s->path, single, err);
}

/* Blocked before there are other threads, which inherit it. */
static int block_signals(struct server *s, struct error *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	sigdelset(&set, SIGPIPE);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC);
	return s->signals < 0 ? error_set_errno(err, -errno, "signalfd") : 0;
}

static int make_files(struct server *s, struct error *err)
{
	const struct files_request r = {
		.exports = s->request->table,
		.options = &s->request->options,
		.single = *s->request->table->list[0].name == '\0',
		.control = s->request->control,
		.partitions = s->request->partitions,
	};

	return files_create(&s->mounted.files, &r, err);
}

/* Early, so that one that cannot be made is known before anything is mounted. */
static int create_pid_file(struct server *s, struct error *err)
{
	const char *path = s->request->pid_file;

	if (!path)
		return 0;
	s->pid_file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	return s->pid_file < 0 ? error_set_errno(err, -errno, "cannot write '%s'", path) : 0;
}

static void write_pid_file(const struct server *s)
{
	if (s->pid_file >= 0 && dprintf(s->pid_file, "%d\n", (int)getpid()) < 0)
		log_message("cannot write '%s': %s", s->request->pid_file, strerror(errno));
}

static void remove_pid_file(const struct server *s)
{
	if (s->pid_file < 0)
		return;
	close(s->pid_file);
	unlink(s->request->pid_file);
}

/* From now on nobody reads what we say but the system's log. */
static void leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	log_to_syslog();
	if (null < 0)
		return;
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	close(null);
}

/* On the thread that has just agreed with the kernel: whoever waited may use the mount now. */
static void be_ready(struct mounted *m)
{
	struct server *s = (struct server *)((char *)m - offsetof(struct server, mounted));

	write_pid_file(s);
	notify_manager("READY=1");
	if (s->request->ready_fd < 0)
		return;
	leave_terminal();
	if (write(s->request->ready_fd, "", 1) < 0)
		log_message("nobody waits any more for the mount: %s", strerror(errno));
	close(s->request->ready_fd);
}

/* ------------------------------------------------------------------ ending */

/* Is our mount the one on top of its place? Else it has been taken off, though somebody may use it still. */
static bool is_on(const struct server *s)
{
	return mountpoint_device(s->path) == s->device;
}

/* Makes the kernel write back what it holds of the mount. */
static void sync_mount(const struct server *s)
{
	int fd = open(s->path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && syncfs(fd))
		log_message("'%s': not everything could be written back: %s", s->path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void cut_off(const struct server *s)
{
	CLEANUP_ERROR struct error err = {0};

	log_message("'%s' is still in use; its users get errors from now on", s->path);
	if (!is_on(s))
		return;
	sync_mount(s);
	if (mountpoint_unmount(s->path, UNMOUNT_LAZILY, &err))
		log_message("%s", error_text(&err));
}

/* True once the mount is off, or what is left of it can be cut off. */
static bool try_unmount(const struct server *s, bool say)
{
	CLEANUP_ERROR struct error err = {0};

	if (!is_on(s) || !mountpoint_unmount(s->path, 0, &err) || !is_on(s))
		return true;
	if (say)
		log_message("%s; waiting for up to %u seconds for its users to leave (a second signal cuts them off)",
			    error_text(&err), s->request->grace);
	return false;
}

/* Takes what has arrived on the signalfd; true when something had. */
static bool take_signal(const struct server *s)
{
	struct signalfd_siginfo info;

	return read(s->signals, &info, sizeof(info)) == sizeof(info);
}

/* After the first signal: until the mount is off, in one way or the other. */
static void leave(const struct server *s)
{
	uint64_t until = wait_now() + (uint64_t)s->request->grace * UINT64_C(1000000000);
	struct pollfd fds[] = {{.fd = session_ended_fd(s->session), .events = POLLIN},
			       {.fd = s->signals, .events = POLLIN}};

	notify_manager("STOPPING=1");
	for (bool first = true; !try_unmount(s, first); first = false) {
		if (wait_now() >= until || (poll(fds, 2, RETRY_MS) > 0 && fds[1].revents)) {
			cut_off(s);
			return;
		}
		if (fds[0].revents)
			return;
	}
}

static void run(const struct server *s)
{
	struct pollfd fds[] = {{.fd = session_ended_fd(s->session), .events = POLLIN},
			       {.fd = s->signals, .events = POLLIN}};

	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return;
		if (fds[0].revents)
			return;
		if (fds[1].revents && take_signal(s)) {
			leave(s);
			return;
		}
	}
}

/* ------------------------------------------------------------------ all of it */

static int serve_mounted(struct server *s, struct error *err)
{
	struct wait_group left = {0};
	int status = start_watchers(s, &left, err);

	if (!status)
		status = session_start(s->session, err);
	if (status) {
		mountpoint_unmount(s->path, UNMOUNT_LAZILY, NULL);
	} else {
		run(s);
	}
	if (s->loop)
		stop_watchers(s, &left);
	session_end(s->session);
	return status;
}

static int mount_and_serve(struct server *s, struct error *err)
{
	int status = make_files(s, err);

	if (status)
		return status;
	status = create_pid_file(s, err);
	if (status)
		goto out;
	s->mounted.options = &s->request->options;
	s->mounted.ready = be_ready;
	s->mounted.forget = forget;
	status = session_mount(s->path, &s->mounted, &s->session, err);
	s->device = mountpoint_device(s->path);
	if (!status)
		status = serve_mounted(s, err);
	remove_pid_file(s);
out:
	files_free(&s->mounted.files);
	return status;
}

static int open_and_serve(struct server *s, struct error *err)
{
	struct export_table *table = s->request->table;
	CLEANUP_ERROR struct error closing = {0};
	int status = exports_open(table, s->request->options.read_only ? OPEN_READ_ONLY : 0, err);

	if (status)
		return status;
	status = mount_and_serve(s, err);
	if (exports_close(table, &closing) && !status)
		status = error_move(err, &closing);
	return status;
}

int serve(const struct serve_request *request, struct error *err)
{
	struct server s = {.request = request, .signals = -1, .pid_file = -1, .lock = PTHREAD_MUTEX_INITIALIZER};
	int status = exports_check(request->table, err);

	if (!status)
		status = find_path(&s, err);
	if (!status)
		status = block_signals(&s, err);
	if (!status)
		status = open_and_serve(&s, err);
	if (s.signals >= 0)
		close(s.signals);
	free(s.path);
	return status;
}
