/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef PLATTER_FUSE_NOTIFY_H
#define PLATTER_FUSE_NOTIFY_H

/*
 * Tells a service manager something ("READY=1"), if one has asked for it by NOTIFY_SOCKET; nothing otherwise. The protocol is
 * that of sd_notify(3), section "Notes": one datagram.
 */
void notify_manager(const char *state);

#endif
