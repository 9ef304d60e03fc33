/* SPDX-License-Identifier: BSD-3-Clause */
#include "decorators/luks-library.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

static struct luks_library library;
static bool loaded;
static pthread_mutex_t lock =
	PTHREAD_MUTEX_INITIALIZER; /* protects both until it is loaded; nothing waits for fibers under it */

static int refuse(struct error *err)
{
	const char *why = dlerror();

	return error_set(err, -ENOENT, "%s cannot be loaded, which luks: needs: %s (apt-get install %s)",
			 LIBCRYPTSETUP_SONAME, why ? why : "", LIBCRYPTSETUP_PACKAGE);
}

/* Never unloaded: what it leaves behind in threads and at exit would point to nothing. */
static int load(struct error *err)
{
	void *handle = dlopen(LIBCRYPTSETUP_SONAME, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);

	if (!handle)
		return refuse(err);
#define FIND(name)                                                     \
	library.name = (__typeof__(library.name))dlsym(handle, #name); \
	if (!library.name)                                             \
		return refuse(err);
	LUKS_LIBRARY(FIND)
#undef FIND
	loaded = true;
	return 0;
}

int luks_library_get(const struct luks_library **out, struct error *err)
{
	int status;

	pthread_mutex_lock(&lock);
	status = loaded ? 0 : load(err);
	pthread_mutex_unlock(&lock);
	*out = &library;
	return status;
}
