// Package extfs reads ext2, ext3 and ext4 file systems: bytes in, files out.
//
// Open takes any io.ReaderAt (a file, a partition of a larger image) and gives
// a read-only view: inodes by number, names in directories, file content, link
// targets and extended attributes. Walk and ReadFile resolve paths inside the
// image. Everything that mke2fs writes is understood: blocks of 1 to 64 KiB,
// block maps and extents, 64bit, flex_bg, meta_bg, bigalloc, inline_data,
// ea_inode, indexed and very large directories, sparse files, unwritten
// extents (zeros), large inodes with nanoseconds.
//
// Trust: the bytes come from anyone. Each number read is checked before use,
// trees have a fixed depth, allocations are bounded by the block size or by a
// limit of this package, and a fault is an error that wraps ErrCorrupt,
// ErrLimit or ErrUnsupported, never a panic. Checksums (metadata_csum) are not
// verified: they guard against a failing disk and anyone can recompute them;
// the signature of the image is what protects its content.
//
// It never writes, knows no path, flag or network, and does not replay a
// journal. An image whose journal holds transactions that are not written back
// is read as it lies, and Warnings says ErrNeedsRecovery: mounting it once with
// the kernel or running e2fsck cures it. Encrypted, compressed and
// case-folding file systems are refused.
//
//	0       1024          2048 or block size
//	| boot  | superblock  | group descriptors | ... bitmaps, inode tables, data |
//	                        |- inode table of the group
//	inode (128 bytes and more) -> 60 bytes: extents | block map | content | link
//
// All methods of FS may be called from many goroutines at once. The format is
// that of the Linux kernel's documentation, filesystems/ext4.
//
// Files: super.go (superblock, groups), inode.go, block.go (where the content
// lies), dir.go, xattr.go, path.go (Walk, ReadFile, Tree), cache.go.
package extfs
