// Package squashfs reads and writes squashfs 4.0 images.
//
// A Reader takes an io.ReaderAt and a size (a file, or a partition that may
// begin at any offset inside one) and gives inodes, directories, link targets,
// extended attributes and file content. An inode is named by its reference,
// the 48-bit number that the format itself uses, so a reader keeps no node
// table. File content comes either copied (ReadAt) or as slices of a cache of
// decompressed blocks (File.Blocks), which a server can hand to the kernel
// without copying.
//
// Trust: whoever made the image is an enemy. Every count and offset is checked
// before memory is taken for it, names with a slash or a zero byte, "." and
// "..", doubled and unsorted names are refused, and what lies on the disk only
// ever moves a cursor forward, so that no loop can be built. Such findings wrap
// ErrCorrupt and name the place. All caches are bounded. A file that changes
// or shrinks while it is read gives errors, never a fault: nothing is mapped.
//
// The package knows no paths of the host, resolves links only inside the image,
// and never creates anything outside the io.WriterAt it was given.
//
//	0          superblock, 96 bytes
//	           data blocks and fragment blocks
//	InodeTable inodes      } metadata: blocks of at most 8192 bytes, each
//	DirTable   directories } behind a two-byte header with its size
//	FragTable  where each fragment block lies
//	Export     inode number to inode reference
//	IDTable    user and group ids
//	XattrTable extended attributes
//
// Reader files: reader.go opens, source.go reads metadata and tables, inode.go,
// dir.go, file.go and xattr.go decode, walk.go resolves paths, cache.go and
// arena.go hold decompressed data, decompress.go and lzo.go decompress.
package squashfs
