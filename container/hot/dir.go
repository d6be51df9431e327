package hot

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	suffix = ".hot"
	prefix = "tmp_" // of files that are being written
	// maxNames bounds how much of the directory is looked at.
	maxNames = 4096
	// staleTime is how old a file may be that is being written.
	staleTime = time.Minute
	// touchTime is how old the time of last use may become.
	touchTime = time.Hour
)

var errOwner = errors.New("it is not a directory of this user alone, mode 0700")

// openDir opens cache/hot below root, and makes it if make is set.
//
// Security: below root, which is the caller's word, no link is followed, and the
// directory must be one that nobody else can write to or look into.
func openDir(root string, make bool) (int, error) {
	if make {
		// The caller's home may lack it, but not what is above.
		if err := unix.Mkdir(root, 0o700); err != nil && err != unix.EEXIST {
			return -1, err
		}
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for _, name := range []string{"cache", "hot"} {
		if make {
			if err := unix.Mkdirat(fd, name, 0o700); err != nil && err != unix.EEXIST {
				unix.Close(fd)
				return -1, err
			}
		}
		flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		next, err := unix.Openat(fd, name, flags, 0)
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		unix.Close(fd)
		return -1, errOwner
	}
	return fd, nil
}

// openFile opens a file and reads its table, which must be that of identity.
func openFile(dir int, identity []byte) (int, *table, error) {
	name := fileName(identity)
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, nil, err
	}
	t, err := readTable(fd, identity)
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, t, nil
}

func readTable(fd int, identity []byte) (*table, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return nil, errOwner
	}
	b := make([]byte, min(maxHead, max(st.Size, 0)))
	if n, err := unix.Pread(fd, b, 0); n != len(b) {
		return nil, errors.Join(errFile, err)
	}
	n, err := headSize(b)
	if err != nil || n > len(b) {
		return nil, errFile
	}
	t, err := parseTable(b[:n], st.Size)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(t.identity, identity) {
		return nil, errFile
	}
	// The time of modification serves as that of the last use.
	if time.Since(time.Unix(st.Mtim.Unix())) > touchTime {
		unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+itoa(fd), nil, 0)
	}
	return t, nil
}

// found is a file of the directory.
type found struct {
	name string
	size int64
	used time.Time
}

// list returns the files of a directory: those that are whole, and those that are
// being written.
func list(dir int) (files, partial []found, err error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	d := os.NewFile(uintptr(fd), "hot")
	defer d.Close()
	names, err := d.Readdirnames(maxNames)
	if len(names) == 0 {
		return nil, nil, nil // an empty directory gives an error, too
	}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		f := found{name, max(st.Size, st.Blocks*512), time.Unix(st.Mtim.Unix())}
		switch {
		case strings.HasPrefix(name, prefix):
			partial = append(partial, f)
		case strings.HasSuffix(name, suffix):
			files = append(files, f)
		}
	}
	return files, partial, err
}

// evict removes the files that were not used for the longest time, but not keep,
// until all together have at most limit bytes.
func evict(dir int, limit int64, keep string) error {
	files, _, err := list(dir)
	if err != nil {
		return err
	}
	total := int64(0)
	for _, f := range files {
		total += f.size
	}
	for total > limit {
		var oldest *found
		for i := range files {
			if f := &files[i]; f.name != keep && f.name != "" && (oldest == nil || f.used.Before(oldest.used)) {
				oldest = f
			}
		}
		if oldest == nil {
			return nil
		}
		unix.Unlinkat(dir, oldest.name, 0)
		total -= oldest.size
		oldest.name = ""
	}
	return nil
}
