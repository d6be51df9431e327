// Package image opens images of any kind, tells what they are and reads the
// files in them.
//
// In goes a path of the host, out comes an Image: its kind by content, never by
// name, its root partition, and for a SIF the container structure. Files reads
// the files of the root whatever its kind.
//
// An image is written by somebody else: its links point where they like, its
// files may be of any size and kind. Every path is resolved inside the image,
// nothing but regular files and directories is opened, and no more is read than
// the caller allows. Nothing here runs or mounts an image.
//
// Files: image.go (kinds), tree.go (what every tree can do), files.go (trees of
// partitions), dir.go (sandboxes), part.go (what else is in an image file),
// union.go (trees above one another), layers.go (an image that is stored as such), resolve.go (paths that a container will
// have).
package image

import "io/fs"

// Tree is the file tree of an image, whatever its kind. Paths begin at the root
// of the image, with or without a slash; symbolic links are followed inside the
// image only. An error about a path that is not there satisfies fs.ErrNotExist.
//
// Security: an image is written by somebody else. A Tree opens nothing but
// regular files and directories, and reads no more than its caller allows.
type Tree interface {
	// ReadFile returns the content of a regular file of at most limit bytes.
	ReadFile(path string, limit int64) ([]byte, error)
	// ReadDir returns the names in a directory, sorted.
	ReadDir(path string) ([]string, error)
	// Stat tells what path is, after following links.
	Stat(path string) (Stat, error)
}

// Stat is what a Tree knows of a file.
type Stat struct {
	Mode     fs.FileMode // type and permissions
	UID, GID uint32
	Size     int64 // bytes
}
