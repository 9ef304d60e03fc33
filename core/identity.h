/* SPDX-License-Identifier: BSD-3-Clause */
/* What tells, from one opening to the next, whether a disk still has the same content. */
#ifndef PLATTER_CORE_IDENTITY_H
#define PLATTER_CORE_IDENTITY_H

#define IDENTITY_TEXT_MAX 256

/*
 * Two texts of printable ASCII without blanks, for comparing and for showing. Two disks with the same name and version have
 * the same content; a name whose version is another one has, perhaps, changed. Whoever fills this in prefers a new version
 * for the same content to an old one for a new.
 */
struct identity {
	char name[IDENTITY_TEXT_MAX];    /* which disk it is: stays when the content changes */
	char version[IDENTITY_TEXT_MAX]; /* another one whenever the content may have changed */
};

#endif
