/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One thread waits for the next tick, for a signal, or for the end. Signals are blocked everywhere and read from a descriptor, so
 * no code of ours ever runs in a signal handler. A signal that the user had ignored (nohup) stays ignored.
 */
#include "cli/progress.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <jansson.h>

#include "core/spec.h"
#include "core/wait.h"

#define BAR_WIDTH 24u
#define LINE_MAX_BYTES 160u

const char *const progress_words[] = {"auto", "bar", "plain", "json", "none", NULL};

struct phase {
	const char *what;
	uint64_t total;
	uint64_t began_ns;
};

struct progress {
	struct watch watch;
	const char *verb;
	enum progress_form form;
	bool asked_for; /* the form was chosen, so that its last line is always printed */
	_Atomic uint64_t done;
	_Atomic int signal; /* that asked to stop */
	pthread_mutex_t lock; /* protects the next three, orders what is printed */
	struct phase phase;
	bool shown;   /* something was printed of this phase */
	size_t width; /* of what the bar's line holds */
	sigset_t signals, before;
	int signal_fd, end_fd;
	pthread_t thread;
	bool has_thread;
};

/* ------------------------------------------------------------------ what is printed, under the lock */

struct figures {
	struct phase phase;
	uint64_t done;
	double seconds, rate; /* bytes a second */
	double left;          /* seconds; negative: not known */
};

static struct figures look(struct progress *p)
{
	struct figures f = {.left = -1};

	f.phase = p->phase;
	f.done = atomic_load(&p->done);
	if (f.done > f.phase.total)
		f.done = f.phase.total;
	f.seconds = (double)(wait_now() - f.phase.began_ns) / 1e9;
	if (f.seconds > 0)
		f.rate = (double)f.done / f.seconds;
	if (f.rate > 0)
		f.left = (double)(f.phase.total - f.done) / f.rate;
	return f;
}

static unsigned percent(const struct figures *f)
{
	return f->phase.total > 0 ? (unsigned)((double)f->done * 100 / (double)f->phase.total) : 100;
}

/* "1:02:03", or "?" */
static void print_left(double seconds, char text[24])
{
	uint64_t s = (uint64_t)ceil(seconds < 0 ? 0 : seconds);

	if (seconds < 0 || seconds > 359999)
		snprintf(text, 24, "?");
	else if (s >= 3600)
		snprintf(text, 24, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, s / 3600, s / 60 % 60, s % 60);
	else
		snprintf(text, 24, "%" PRIu64 ":%02" PRIu64, s / 60, s % 60);
}

/* "512 MiB of 1 GiB (50%), 312 MiB/s, 0:02 left" */
static void print_figures(const struct figures *f, char out[LINE_MAX_BYTES])
{
	char done[SIZE_TEXT_MAX], total[SIZE_TEXT_MAX], rate[SIZE_TEXT_MAX], left[24];

	print_left(f->left, left);
	snprintf(out, LINE_MAX_BYTES, "%s of %s (%u%%), %s/s, %s left", size_print_human(f->done, done),
		 size_print_human(f->phase.total, total), percent(f), size_print_human((uint64_t)f->rate, rate), left);
}

static void print_bar(struct progress *p, const struct figures *f)
{
	unsigned full = percent(f) * BAR_WIDTH / 100;
	char text[LINE_MAX_BYTES], bar[BAR_WIDTH + 1];
	size_t before = p->width;

	print_figures(f, text);
	memset(bar, '.', BAR_WIDTH);
	memset(bar, '#', full);
	bar[BAR_WIDTH] = '\0';
	p->width = strlen(f->phase.what) + BAR_WIDTH + strlen(text);
	fprintf(stderr, "\r%s [%s] %s%*s", f->phase.what, bar, text,
		(int)(before > p->width ? before - p->width : 0), "");
}

static void print_line(const struct progress *p, const struct figures *f)
{
	char text[LINE_MAX_BYTES];

	print_figures(f, text);
	fprintf(stderr, "platter %s: %s: %s\n", p->verb, f->phase.what, text);
}

static void print_object(const struct progress *p, const struct figures *f)
{
	json_t *left = f->left < 0 ? json_null() : json_real(f->left);
	json_t *object = json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:o}", "verb", p->verb, "phase", f->phase.what,
				   "done_bytes", (json_int_t)f->done, "total_bytes", (json_int_t)f->phase.total,
				   "elapsed_s", f->seconds, "bytes_per_s", f->rate, "left_s", left);
	char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;

	if (text)
		fprintf(stderr, "%s\n", text);
	free(text);
	json_decref(object);
}

static void show(struct progress *p)
{
	struct figures f = look(p);

	if (!f.phase.what)
		return;
	p->shown = true;
	if (p->form == PROGRESS_BAR)
		print_bar(p, &f);
	else if (p->form == PROGRESS_JSON)
		print_object(p, &f);
	else
		print_line(p, &f);
	fflush(stderr);
}

/* A line by itself, whatever the form. */
static void show_line(struct progress *p)
{
	struct figures f = look(p);

	if (!f.phase.what || p->form == PROGRESS_JSON) {
		show(p);
		return;
	}
	if (p->width > 0)
		fprintf(stderr, "\n");
	p->width = 0;
	print_line(p, &f);
	fflush(stderr);
}

/* The stretch is at its end. */
static void show_last(struct progress *p)
{
	if (p->form != PROGRESS_NONE && (p->shown || p->asked_for))
		show(p); /* nothing, before the first */
	if (p->width > 0)
		fprintf(stderr, "\n");
	p->width = 0;
	p->shown = false;
}

/* ------------------------------------------------------------------ the thread */

static int tick_ms(const struct progress *p)
{
	switch (p->form) {
	case PROGRESS_BAR:
		return 200;
	case PROGRESS_JSON:
		return 500;
	case PROGRESS_NONE:
		return -1;
	default:
		return 5000;
	}
}

static void take_signal(struct progress *p)
{
	struct signalfd_siginfo info;

	if (read(p->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	if (info.ssi_signo == SIGUSR1) {
		pthread_mutex_lock(&p->lock);
		show_line(p);
		pthread_mutex_unlock(&p->lock);
		return;
	}
	if (atomic_load(&p->signal)) { /* not fast enough for the user */
		signal((int)info.ssi_signo, SIG_DFL);
		pthread_sigmask(SIG_UNBLOCK, &p->signals, NULL);
		kill(getpid(), (int)info.ssi_signo);
	}
	atomic_store(&p->signal, (int)info.ssi_signo);
}

static void *tick(void *argument)
{
	struct progress *p = argument;
	struct pollfd fds[] = {{.fd = p->signal_fd, .events = POLLIN}, {.fd = p->end_fd, .events = POLLIN}};

	for (;;) {
		int ready = poll(fds, 2, tick_ms(p));
		if (ready < 0 && errno != EINTR)
			return NULL;
		if (ready > 0 && fds[0].revents)
			take_signal(p);
		if (ready > 0 && fds[1].revents)
			return NULL;
		if (ready == 0) {
			pthread_mutex_lock(&p->lock);
			show(p);
			pthread_mutex_unlock(&p->lock);
		}
	}
}

/* ------------------------------------------------------------------ beginning and ending */

static void add_unless_ignored(sigset_t *set, int number)
{
	struct sigaction now;

	if (!sigaction(number, NULL, &now) && now.sa_handler != SIG_IGN)
		sigaddset(set, number);
}

static void take_signals(struct progress *p)
{
	sigemptyset(&p->signals);
	sigaddset(&p->signals, SIGUSR1);
	add_unless_ignored(&p->signals, SIGINT);
	add_unless_ignored(&p->signals, SIGTERM);
	add_unless_ignored(&p->signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &p->signals, &p->before);
}

static int start_thread(struct progress *p, struct error *err)
{
	int status;

	p->signal_fd = signalfd(-1, &p->signals, SFD_CLOEXEC | SFD_NONBLOCK);
	p->end_fd = eventfd(0, EFD_CLOEXEC);
	if (p->signal_fd < 0 || p->end_fd < 0)
		return error_set_errno(err, -errno, "descriptors for signals");
	status = pthread_create(&p->thread, NULL, tick, p);
	if (status)
		return error_set_errno(err, -status, "a thread");
	p->has_thread = true;
	return 0;
}

static void free_progress(struct progress *p)
{
	if (p->signal_fd >= 0)
		close(p->signal_fd);
	if (p->end_fd >= 0)
		close(p->end_fd);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static void watch_progress_phase(struct watch *w, const char *what, uint64_t total)
{
	progress_phase((struct progress *)w, what, total);
}

static void watch_progress_add(struct watch *w, uint64_t bytes)
{
	progress_add((struct progress *)w, bytes);
}

static bool watch_progress_stopped(struct watch *w)
{
	return progress_stopped((struct progress *)w);
}

struct watch *progress_watch(struct progress *p)
{
	return &p->watch;
}

int progress_begin(struct progress **out, const char *verb, enum progress_form form, struct error *err)
{
	struct progress *p = calloc(1, sizeof(*p));
	int status;

	if (!p)
		return error_set(err, -ENOMEM, "no memory");
	p->watch = (struct watch){.phase = watch_progress_phase, .add = watch_progress_add, .stopped = watch_progress_stopped};
	p->verb = verb;
	p->form = form;
	p->asked_for = form != PROGRESS_AUTO;
	p->signal_fd = p->end_fd = -1;
	if (form == PROGRESS_AUTO)
		p->form = isatty(STDERR_FILENO) ? PROGRESS_BAR : PROGRESS_PLAIN;
	pthread_mutex_init(&p->lock, NULL);
	take_signals(p);
	status = start_thread(p, err);
	if (status) {
		pthread_sigmask(SIG_SETMASK, &p->before, NULL);
		free_progress(p);
		return status;
	}
	*out = p;
	return 0;
}

void progress_phase(struct progress *p, const char *what, uint64_t total)
{
	pthread_mutex_lock(&p->lock);
	show_last(p);
	p->phase = (struct phase){.what = what, .total = total, .began_ns = wait_now()};
	atomic_store(&p->done, 0);
	pthread_mutex_unlock(&p->lock);
}

void progress_add(struct progress *p, uint64_t bytes)
{
	atomic_fetch_add_explicit(&p->done, bytes, memory_order_relaxed);
}

bool progress_stopped(const struct progress *p)
{
	return atomic_load_explicit(&p->signal, memory_order_relaxed) != 0;
}

/* Ends the process by the signal it got: the way that tells a shell, too, to stop. */
static void die(const struct progress *p, int number)
{
	fflush(stdout);
	signal(number, SIG_DFL);
	raise(number); /* it is still blocked */
	pthread_sigmask(SIG_SETMASK, &p->before, NULL);
}

void progress_end(struct progress *p)
{
	uint64_t one = 1;

	if (!p)
		return;
	if (write(p->end_fd, &one, sizeof(one)) == (ssize_t)sizeof(one))
		pthread_join(p->thread, NULL);
	show_last(p);
	if (progress_stopped(p))
		die(p, atomic_load(&p->signal));
	pthread_sigmask(SIG_SETMASK, &p->before, NULL);
	free_progress(p);
}
