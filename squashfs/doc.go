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
// A Writer takes entries in any order, with their contents, from a tree or a tar
// archive, and makes an image in one pass. Blocks are compressed by several
// goroutines, and memory is bounded but for the tree itself, some hundred bytes
// for each entry. Equal files are stored once. The image depends on the entries
// and their order alone: not on the number of goroutines, not on the run.
//
// Writer files: writer.go keeps the tree, write_data.go moves the contents,
// compress.go compresses (squashfs/deflate for gzip, squashfs/zstd), write_inode.go,
// write_meta.go and write_xattr.go make the tables, write_tar.go reads archives.
//
// Reader files: reader.go opens, source.go reads metadata and tables, inode.go,
// dir.go, file.go and xattr.go decode, walk.go resolves paths, cache.go and
// arena.go hold decompressed data, observe.go lets others watch and fill that, decompress.go and lzo.go decompress.
package squashfs
