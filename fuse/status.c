/* SPDX-License-Identifier: BSD-3-Clause */
#include "fuse/status.h"

#include <errno.h>
#include <stddef.h>

/* To programs a disk is a regular file, so it fails as one does. */
static const struct {
	int status;
	int result;
} table[] = {
	{0, 0},
	{-ERANGE, ENOSPC}, /* the disk shrank under a write */
	{-EINVAL, EINVAL},
	{-EIO, EIO},
	{-ENODATA, EIO}, /* a medium error; read(2) knows one word for it */
	{-EFAULT, EIO},  /* the buffer is ours, not the program's */
	{-EROFS, EROFS},
	{-EBADE, EBADE}, /* as a block device says that somebody else has it reserved */
	{-ECANCELED, EIO},
	{-EOPNOTSUPP, EOPNOTSUPP},
	{-ENOSPC, ENOSPC},
	{-ENOMEM, ENOMEM},
	{-ENOMEDIUM, ENOMEDIUM},
};

int status_to_errno(int status)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].status == status)
			return table[i].result;
	return EIO;
}
