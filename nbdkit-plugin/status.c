/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbdkit-plugin/status.h"

#include <errno.h>
#include <stddef.h>

/*
 * The NBD protocol knows EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP and ESHUTDOWN; nbdkit sends
 * anything else as EINVAL, which tells a client that the request was malformed and is no use to repeat.
 */
static const struct {
	int status;
	int reading;
	int writing;
} table[] = {
	{-ERANGE, EINVAL, ENOSPC}, /* "beyond the end": NBD asks for ENOSPC of writes */
	{-EINVAL, EINVAL, EINVAL},
	{-EIO, EIO, EIO},
	{-ENODATA, EIO, EIO},
	{-EFAULT, EIO, EIO}, /* the buffer is nbdkit's: not the client's fault */
	{-EROFS, EPERM, EPERM},
	{-EBADE, EPERM, EPERM},
	{-ECANCELED, EIO, EIO},
	{-EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP}, /* what a failed fast zero has to say */
	{-ENOSPC, ENOSPC, ENOSPC},
	{-ENOMEM, ENOMEM, ENOMEM},
	{-ENOMEDIUM, EIO, EIO},
};

int status_to_nbd(int status, bool writing)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].status == status)
			return writing ? table[i].writing : table[i].reading;
	return EIO;
}
