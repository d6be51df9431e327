// Package image opens images of any kind and reads the files in them.
//
// An image is written by somebody else: its links point where they like, its
// files may be of any size and kind. A Tree therefore resolves every path
// inside the image, opens nothing but regular files and directories, and reads
// no more than its caller allows.
package image

import "io/fs"

// Tree is the file tree of an image, whatever its kind. Paths begin at the root
// of the image, with or without a slash; symbolic links are followed inside the
// image only. An error about a path that is not there satisfies fs.ErrNotExist.
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
