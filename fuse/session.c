/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Threads of our own over libfuse's protocol
 *
 * libfuse's own loop takes a lock before and after every request. Ours reads the device by itself (fuse_session_custom_io),
 * so that it can have:
 *
 *   - a device of its own for each thread (FUSE_DEV_IOC_CLONE): requests that are under way are kept in a
 *     list per device, under the device's lock
 *   - more threads when all are busy, up to a number, without a lock: whoever takes the last idle thread's place
 *     starts another one. They stay: idle ones cost memory and nothing else
 *   - a word with the kernel about what the distribution's libfuse does not know: the answer to FUSE_INIT
 *     passes through here, and flags that the kernel has offered are added to it. FUSE_HANDLE_KILLPRIV_V2 says that
 *     writing takes away set-user-ID bits by itself (there are none); without it the kernel asks for an extended attribute before
 *     each write. FUSE_DIRECT_IO_ALLOW_MMAP (Linux 6.6) lets files that bypass the page cache be mapped (linux/fuse.h)
 *
 *   - rings in the place of the device, where the kernel offers them (rings.c). The device still has what wants no answer
 *
 * A thread that waits for a request waits inside read(2) or io_uring_enter(2). It comes back when the kernel ends the connection, or when
 * session_end() sends it a signal, again and again until it has seen it.
 */
#include "fuse/session.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "fuse/log.h"
#include "fuse/mountpoint.h"
#include "fuse/rings.h"

/* linux/fuse.h since protocol 7.39: files opened with FOPEN_DIRECT_IO may be mapped shared. */
#define DIRECT_IO_ALLOW_MMAP (UINT64_C(1) << 36)

/* Wakes a thread out of read(2). */
#define KICK_SIGNAL SIGUSR1
#define KICK_EVERY_NS 1000000

struct worker {
	struct worker *next;
	struct session *session;
	pthread_t thread;
	int device; /* -1: the session's */
	struct ring_queue *queue; /* NULL: it reads the device */
	bool first; /* of its queue */
};

struct session {
	struct fuse_session *fuse;
	struct mounted *mounted;
	int ended; /* eventfd */
	_Atomic bool stopping;
	_Atomic int idle; /* threads that wait for a request; less than 0 never */

	pthread_mutex_t lock; /* protects what follows; nothing waits under it */
	struct worker *workers;
	unsigned nr_workers;
	struct rings *rings; /* NULL: none were made */

	/* Of FUSE_INIT; one thread is there then. */
	uint64_t init_unique;
	uint64_t init_offered; /* flags in the order of the protocol: `flags`, then `flags2` */
	_Atomic bool init_done;
	bool uses_rings; /* else requests come by the device */
};

/* The device of this thread; -1 where it has none of its own. */
static __thread int own_device = -1;

/* ------------------------------------------------------------------ the device */

/* libfuse hands back what operations are given, which knows nothing of sessions: each thread knows its own. */
static __thread struct session *own_session;

static void note_init(struct session *s, const void *request, size_t size)
{
	const struct fuse_in_header *in = request;
	const struct fuse_init_in *init = (const void *)(in + 1);

	if (size < sizeof(*in) + offsetof(struct fuse_init_in, flags) + sizeof(init->flags) || in->opcode != FUSE_INIT)
		return;
	s->init_unique = in->unique;
	s->init_offered = init->flags;
	if ((init->flags & FUSE_INIT_EXT) && size >= sizeof(*in) + sizeof(*init))
		s->init_offered |= (uint64_t)init->flags2 << 32;
}

/* ECONNABORTED says no more than ENODEV, that the connection has ended, but libfuse prints it as an error. */
static ssize_t device_read(int device, void *buffer, size_t size, void *userdata)
{
	struct session *s = own_session;
	ssize_t n = read(own_device >= 0 ? own_device : device, buffer, size);

	(void)userdata;
	if (n < 0 && errno == ECONNABORTED)
		errno = ENODEV;
	if (n > 0 && s && !atomic_load_explicit(&s->init_done, memory_order_relaxed))
		note_init(s, buffer, (size_t)n);
	return n;
}

/* What we add to libfuse's answer, of what the kernel has offered. */
static void improve_init(const struct session *s, struct fuse_init_out *out)
{
	uint64_t flags = s->init_offered & (FUSE_HANDLE_KILLPRIV_V2 | DIRECT_IO_ALLOW_MMAP);

	if (s->uses_rings)
		flags |= RINGS_INIT_FLAG;

	if (flags >> 32)
		flags |= FUSE_INIT_EXT;
	out->flags |= (uint32_t)flags;
	out->flags2 |= (uint32_t)(flags >> 32);
}

/* True when this is the answer to FUSE_INIT: `out` becomes a copy of it, to be improved. */
static bool is_init_answer(const struct session *s, const struct iovec *iov, int count, struct fuse_init_out *out)
{
	const struct fuse_out_header *header = iov[0].iov_base;

	if (!s->init_unique || header->unique != s->init_unique || header->error || count != 2 ||
	    iov[1].iov_len > sizeof(*out) || iov[1].iov_len < offsetof(struct fuse_init_out, flags2) + sizeof(out->flags2))
		return false;
	memcpy(out, iov[1].iov_base, iov[1].iov_len);
	return true;
}

static void add_ring_worker(struct ring_queue *q, void *argument);
static int add_worker_locked(struct session *s, struct ring_queue *q, bool first);

/* The first thread of each queue has to be there: the kernel waits for all of them. Takes `rings` over. 0 or an errno. */
static int start_ring_threads(struct session *s, struct rings *rings)
{
	int error;

	pthread_mutex_lock(&s->lock);
	s->rings = rings;
	error = atomic_load(&s->stopping) ? ECANCELED : 0;
	for (unsigned i = 0; i < rings_count(rings) && !error; i++)
		error = add_worker_locked(s, rings_queue(rings, i), true);
	pthread_mutex_unlock(&s->lock);
	if (error)
		rings_stop(rings); /* those that were started leave */
	return error;
}

/* Where the kernel offers that. Without them requests come by the device, as ever. */
static void start_rings(struct session *s)
{
	CLEANUP_ERROR struct error err = {0};
	struct rings *rings;

	if (!(s->init_offered & RINGS_INIT_FLAG) || s->mounted->options->no_io_uring)
		return;
	if (!rings_create(s->fuse, fuse_session_fd(s->fuse), add_ring_worker, s, &rings, &err)) {
		int error = start_ring_threads(s, rings);
		s->uses_rings = !error;
		if (error)
			error_set_errno(&err, -error, "FUSE over io_uring: threads");
	}
	if (!s->uses_rings)
		log_message("%s; requests come by the device instead", error_text(&err));
}

static ssize_t write_init(struct session *s, int device, struct iovec *iov, int count)
{
	struct fuse_init_out out;

	if (!is_init_answer(s, iov, count, &out))
		return writev(device, iov, count);
	start_rings(s);
	improve_init(s, &out);
	struct iovec improved[2] = {iov[0], {.iov_base = &out, .iov_len = iov[1].iov_len}};
	ssize_t n = writev(device, improved, 2);
	atomic_store(&s->init_done, true);
	if (s->uses_rings)
		rings_go(s->rings, n > 0);
	return n;
}

static ssize_t device_writev(int device, struct iovec *iov, int count, void *userdata)
{
	struct session *s = own_session;
	int to = own_device >= 0 ? own_device : device;

	(void)userdata;
	if (rings_answer(iov, count))
		return (ssize_t)((const struct fuse_out_header *)iov[0].iov_base)->len;
	if (s && !atomic_load_explicit(&s->init_done, memory_order_relaxed))
		return write_init(s, to, iov, count);
	return writev(to, iov, count);
}

static const struct fuse_custom_io device_io = {.read = device_read, .writev = device_writev};

/* One more device of the same connection, or -1. */
static int clone_device(const struct session *s)
{
	int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	uint32_t master = (uint32_t)fuse_session_fd(s->fuse);

	if (device < 0 || !ioctl(device, FUSE_DEV_IOC_CLONE, &master))
		return device;
	close(device);
	return -1;
}

/* ------------------------------------------------------------------ threads */

static void tell_ended(struct session *s)
{
	uint64_t one = 1;

	if (write(s->ended, &one, sizeof(one)) < 0)
		log_message("cannot wake the main thread: %s", strerror(errno));
}

static void add_worker(struct session *s);

/* One request. False when there will be no more. */
static bool serve_one(struct session *s, struct fuse_buf *buffer)
{
	int n = fuse_session_receive_buf(s->fuse, buffer);

	if (n == -EINTR || n == -EAGAIN)
		return true;
	if (n <= 0)
		return false;
	if (atomic_fetch_sub(&s->idle, 1) == 1)
		add_worker(s);
	fuse_session_process_buf(s->fuse, buffer);
	atomic_fetch_add(&s->idle, 1);
	return true;
}

static void *run_worker(void *argument)
{
	struct worker *w = argument;
	struct session *s = w->session;
	struct fuse_buf buffer = {0};
	bool over = true;

	own_device = w->device;
	own_session = s;
	if (w->queue) {
		pthread_setname_np(pthread_self(), "platter-ring");
		over = !rings_serve(w->queue, w->first);
	} else {
		while (!atomic_load_explicit(&s->stopping, memory_order_relaxed) && serve_one(s, &buffer))
			;
	}
	free(buffer.mem);
	operations_end_thread();
	if (over && !atomic_load(&s->stopping))
		tell_ended(s);
	return NULL;
}

static int start_thread(struct worker *w)
{
	return pthread_create(&w->thread, NULL, run_worker, w);
}

/* Under the lock. 0 or an errno. */
static int add_worker_locked(struct session *s, struct ring_queue *q, bool first)
{
	struct worker *w = calloc(1, sizeof(*w));
	int error;

	if (!w)
		return ENOMEM;
	w->session = s;
	w->queue = q;
	w->first = first;
	w->device = q ? -1 : clone_device(s);
	if (!q)
		atomic_fetch_add(&s->idle, 1);
	error = start_thread(w);
	if (error) {
		if (!q)
			atomic_fetch_sub(&s->idle, 1);
		if (w->device >= 0)
			close(w->device);
		free(w);
		return error;
	}
	w->next = s->workers;
	s->workers = w;
	s->nr_workers++;
	return 0;
}

/* Without one more thread the mount is slower, not broken. */
static void add_worker_for(struct session *s, struct ring_queue *q)
{
	pthread_mutex_lock(&s->lock);
	if (s->nr_workers < s->mounted->options->threads && !atomic_load(&s->stopping))
		add_worker_locked(s, q, false);
	pthread_mutex_unlock(&s->lock);
}

static void add_worker(struct session *s)
{
	add_worker_for(s, NULL);
}

static void add_ring_worker(struct ring_queue *q, void *argument)
{
	add_worker_for(argument, q);
}

/* ------------------------------------------------------------------ mounting */

static void ignore_signal(int number)
{
	(void)number;
}

/* Without SA_RESTART, so that read(2) comes back. */
static void catch_kicks(void)
{
	struct sigaction action = {.sa_handler = ignore_signal};
	sigset_t kick;

	sigaction(KICK_SIGNAL, &action, NULL);
	sigemptyset(&kick);
	sigaddset(&kick, KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
}

static int add_options(struct fuse_args *arguments, const struct mount_options *o)
{
	char names[80];
	const char *list[] = {
		"default_permissions",
		names,
		o->allow_other ? "allow_other" : NULL,
		o->auto_unmount ? "auto_unmount" : NULL,
		o->read_only ? "ro" : NULL,
	};

	snprintf(names, sizeof(names), "subtype=" MOUNT_SUBTYPE ",fsname=" MOUNT_SOURCE ":%d", (int)getpid());
	if (fuse_opt_add_arg(arguments, "platter"))
		return -1;
	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
		if (list[i] && (fuse_opt_add_arg(arguments, "-o") || fuse_opt_add_arg(arguments, list[i])))
			return -1;
	return 0;
}

static struct fuse_session *new_fuse_session(struct mounted *m)
{
	struct fuse_args arguments = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *fuse = NULL;

	if (!add_options(&arguments, m->options))
		fuse = fuse_session_new(&arguments, &mount_operations, sizeof(mount_operations), m);
	fuse_opt_free_args(&arguments);
	return fuse;
}

static int mount_it(struct session *s, const char *path, struct error *err)
{
	s->ended = eventfd(0, EFD_CLOEXEC);
	if (s->ended < 0)
		return error_set_errno(err, -errno, "eventfd");
	s->fuse = new_fuse_session(s->mounted);
	if (!s->fuse)
		return error_set(err, -ENOMEM, "no memory");
	if (fuse_session_mount(s->fuse, path)) /* it has said why on standard error */
		return error_set(err, -EIO, "cannot mount on '%s'", path);
	if (fuse_session_custom_io(s->fuse, &device_io, fuse_session_fd(s->fuse))) {
		fuse_session_unmount(s->fuse);
		return error_set(err, -ENOMEM, "no memory");
	}
	return 0;
}

int session_mount(const char *path, struct mounted *m, struct session **out, struct error *err)
{
	struct session *s = calloc(1, sizeof(*s));
	int status;

	if (!s)
		return error_set(err, -ENOMEM, "no memory");
	s->mounted = m;
	s->ended = -1;
	pthread_mutex_init(&s->lock, NULL);
	catch_kicks();
	status = mount_it(s, path, err);
	if (status)
		session_end(s);
	else
		*out = s;
	return status;
}

int session_start(struct session *s, struct error *err)
{
	int error;

	pthread_mutex_lock(&s->lock);
	error = add_worker_locked(s, NULL, false);
	pthread_mutex_unlock(&s->lock);
	return error ? error_set_errno(err, -error, "cannot start a thread") : 0;
}

int session_ended_fd(const struct session *s)
{
	return s->ended;
}

void session_attributes_changed(struct session *s, uint64_t inode)
{
	/* ENOENT: the kernel does not know it, and so keeps nothing of it. */
	fuse_lowlevel_notify_inval_inode(s->fuse, inode, -1, 0);
}

void session_entry_changed(struct session *s, uint64_t inode, const char *name)
{
	fuse_lowlevel_notify_inval_entry(s->fuse, inode, name, strlen(name));
}

/* ------------------------------------------------------------------ ending */

/* Every thread that is there; none comes any more once `stopping` is set and the lock was held. Those at rings are called out of there. */
static struct worker *take_workers(struct session *s)
{
	struct worker *list;
	struct rings *rings;

	pthread_mutex_lock(&s->lock);
	list = s->workers;
	s->workers = NULL;
	rings = s->rings;
	pthread_mutex_unlock(&s->lock);
	if (rings)
		rings_stop(rings);
	return list;
}

static bool join_soon(pthread_t thread)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += KICK_EVERY_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	return pthread_timedjoin_np(thread, NULL, &until) == 0;
}

static void end_worker(struct worker *w)
{
	/* The signal may come just before the thread goes into read(2): hence more than once. */
	do
		pthread_kill(w->thread, KICK_SIGNAL);
	while (!join_soon(w->thread));
	if (w->device >= 0)
		close(w->device);
	free(w);
}

/*
 * libfuse unmounts whatever lies on the path, unless it sees that the connection has ended. So it is shown something that
 * looks like that: a pipe that nobody reads. It takes the place of the device, which ends the connection.
 */
static void disconnect(struct session *s)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC)) {
		log_message("cannot end the connection at once: %s", strerror(errno));
		return;
	}
	close(ends[0]);
	dup3(ends[1], fuse_session_fd(s->fuse), O_CLOEXEC);
	close(ends[1]);
}

void session_end(struct session *s)
{
	struct worker *next;

	if (!s)
		return;
	atomic_store(&s->stopping, true);
	for (struct worker *w = take_workers(s); w; w = next) {
		next = w->next;
		end_worker(w);
	}
	rings_destroy(s->rings); /* which have the device open */
	if (s->fuse) {
		if (fuse_session_fd(s->fuse) >= 0)
			disconnect(s);
		fuse_session_unmount(s->fuse); /* which frees the path */
		fuse_session_destroy(s->fuse);
	}
	if (s->ended >= 0)
		close(s->ended);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
