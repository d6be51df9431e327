// Package sif reads and writes SIF images, version 1: one file that holds a
// container's root file system, its definition, metadata and signatures as
// numbered data objects.
//
//	0        header, 128 bytes: launch line, magic, version, architecture,
//	         image id, times, where the table and the data are
//	4096     table: N slots of 585 bytes (N = 48 unless asked otherwise); a
//	         used slot describes one object: type, id, group, link, place,
//	         times, name and 384 bytes that depend on the type
//	32176    data of object 1, object 2, zero padding, object 3, ...
//	         (partitions start at multiples of 4096)
//
// All integers are little-endian. There is no footer and no checksum: integrity
// comes from signature objects, which cover the bytes that HeaderDigestBytes,
// DescriptorDigestBytes and Reader give.
//
// Open takes any io.ReaderAt and trusts none of its bytes: every count, offset
// and size is checked against the size of the file before it is used, objects
// may not overlap, and memory use is bounded (at most 65536 slots). Oddities
// that cannot do harm are kept and listed by Warnings. Names, launch line and
// object data remain text from a stranger: whoever prints them must escape
// control characters, and whoever opens files must not use them as paths.
//
// Create writes a new image, Edit changes one in place. Data is on disk before
// anything refers to it: a Create that was interrupted leaves no image, an Add
// the old one. Locking, temporary files and renaming are the caller's. The package
// never runs, mounts or verifies anything.
//
// Files: format.go the bytes, types.go the codes and their names, object.go the
// objects, open.go and check.go the reader, create.go and edit.go the writer,
// digest.go what signatures cover. The format is written down in
// doc/format/sif.md.
package sif
