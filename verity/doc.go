// Package verity makes and checks the hash trees that protect the partitions
// of an image while it runs: exactly the hash area of dm-verity (format 1,
// SHA-256, blocks of 4096 bytes), so that the kernel takes the same bytes.
//
// The digest of a block is that of a salt and the block. 128 digests make a
// hash block, whose own digest stands in the level above, up to one block; the
// digest of that one is the root. Whoever knows the root from a source that is
// to be trusted, a signature for example, can check any block by reading
// one hash block of each level.
//
//	0      superblock, padded to 4096 bytes
//	4096   the top hash block, then each level down to the leaves
//
// A Writer takes the data in order, on its way to the disk, and hashes it with
// several goroutines. A Reader is an io.ReaderAt whose every byte was checked
// after it was read, so a file that changes underneath gives a *BlockError and
// never wrong data.
//
// Trust: data and tree are hostile bytes, salt and root are not. Memory is
// bounded: a Writer keeps 32 bytes for each block, a Reader some two megabytes.
//
// Spec: the dm-verity on-disk format of the Linux kernel and of veritysetup.
package verity
