package fusefs

import "strconv"

// KeyValue is one mount option. A Value of "" is an option without one.
type KeyValue struct{ Key, Value string }

// MountOptions returns the options of the mount for a server of this package:
// for fsconfig one by one, or for mount(2) joined with commas. The mounter adds
// "fd", the /dev/fuse descriptor as it sees it, and makes the mount with
// read-only, nosuid and nodev. User and group are those of the process that
// mounts, as numbers of its own user namespace.
//
// The kernel checks permissions (default_permissions), as nobody else does.
// Without allowOther only processes of exactly that user may enter; with it,
// all that live in the user namespace of the mount, or everyone if that is the
// initial one. It is for payloads with several ids and for root.
//
// Security: the list is fixed. No option comes from a user or an image.
func MountOptions(uid, gid int, allowOther bool) []KeyValue {
	o := []KeyValue{
		{"rootmode", "40000"},
		{"user_id", strconv.Itoa(uid)},
		{"group_id", strconv.Itoa(gid)},
		{"default_permissions", ""},
	}
	if allowOther {
		o = append(o, KeyValue{"allow_other", ""})
	}
	return o
}
