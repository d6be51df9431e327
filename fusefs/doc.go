// Package fusefs serves a read-only tree over FUSE, speaking the kernel's
// protocol itself.
//
// In goes a tree (FS: a squashfs or ext image), a list of extra files that the
// tree lacks or that stand in for its own (Extras), and a descriptor of
// /dev/fuse whose mount the caller makes; requests of the kernel are answered
// until the mount is gone. MountOptions gives the options for that mount.
//
// Speed comes from three things. The kernel is told to keep everything for
// ever, since nothing changes: entries, attributes, absent names, pages,
// directories and link targets, and that there is nothing to open or to close.
// One goroutine reads requests and answers all that needs no decompression
// itself; a few workers decompress blocks. And file data goes to the kernel
// straight from the cache of decompressed blocks. Node ids are inode references,
// so there is no table of nodes to keep.
//
// Trust: the image is hostile, the kernel is not. A damaged part of the image
// gives EIO for the requests that meet it, as does a panic in our own code;
// the server lives on. Names in extras are resolved inside the tree only.
//
// The package never touches the mount that it serves: a thread that waited for
// its own answer would stop the program for good. So the caller must not walk
// into the mount from the same process either, and must close other copies of
// the descriptor, or a dead server is never noticed.
//
// A program that does little else should call debug.SetGCPercent(50): most
// memory lies outside the Go heap, and small garbage is cheap to collect. It
// should not lower GOMAXPROCS below the number of workers plus one.
//
// Protocol: FUSE 7.23 to 7.38, the kernel's include/uapi/linux/fuse.h. Files:
// fs.go (FS), squashfs.go and extfs.go (the two images), extras.go, proto.go
// (bytes of the protocol), server.go (requests), read.go (file data and
// workers), mount.go (mount options).
package fusefs
