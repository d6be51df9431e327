// Package recent remembers which image of the cache a reference named lately, so
// that the next start asks no registry and needs no HTTP.
//
// In goes a reference as typed, out comes the path of an image. A record is a
// file of one line, "TYPE/NAME" or "TYPE/NAME pinned", in the folder ref of the
// cache; its time of modification is when the registry was asked. A pinned one
// names an image by digest and holds for ever; any other for a while.
//
// The program that starts containers links this package: it imports little.
// Records are trusted as the cache is: its root is the user's and closed to
// others, which is checked at each use. Anything odd means that there is no
// record.
package recent

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Prefix begins the names of records.
const Prefix = "r_"

// Fresh is how long a tag is taken to name what it named.
const Fresh = 10 * time.Minute

const maxRecord = 512

// Root returns the root of the cache; "" if there is none. configDir is asked
// only where SINGULARITY_CACHEDIR is not set.
func Root(getenv func(string) string, configDir func() string) string {
	dir := getenv("SINGULARITY_CACHEDIR")
	if dir == "" {
		dir = configDir()
	}
	if dir == "" || dir[0] != '/' {
		return ""
	}
	return strings.TrimRight(dir, "/") + "/cache"
}

// Window returns how long records hold: SINGULARITY_CACHE_FRESH, such as "1h" or
// "0", else Fresh.
func Window(getenv func(string) string) time.Duration {
	s := getenv("SINGULARITY_CACHE_FRESH")
	if s == "" {
		return Fresh
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0
	}
	return d
}

// name returns the name of the record of ref, "" if it has none.
func name(ref string) string {
	const hex = "0123456789abcdef"
	b := []byte(Prefix)
	for i := 0; i < len(ref); i++ {
		switch c := ref[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == ':', c == '@':
			b = append(b, c)
		default:
			b = append(b, '_', hex[c>>4], hex[c&15])
		}
	}
	if len(b) > 250 {
		return ""
	}
	return string(b)
}

// Lookup returns the path of the image that ref named at most window ago, and
// "" if that is not known. It counts as a use of the image.
func Lookup(root, ref string, window time.Duration) string {
	path, pinned, asked := read(root, ref)
	if path == "" || !pinned && (time.Since(asked) >= window || time.Since(asked) < -time.Minute) {
		return ""
	}
	Touch(path)
	return path
}

// touchAfter is how old a note of use gets before it is made anew: each one
// costs a file server work, and containers that share a mount of the image want
// it unchanged.
const touchAfter = time.Hour

// Touch notes that the image at path is used: in the time of access, which
// mounts often do not keep.
func Touch(path string) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil || time.Since(time.Unix(st.Atim.Unix())) < touchAfter {
		return
	}
	now := unix.NsecToTimespec(time.Now().UnixNano())
	unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{now, {Nsec: unix.UTIME_OMIT}}, unix.AT_SYMLINK_NOFOLLOW)
}

// Last returns the path of the image that ref named when a registry was last
// asked, however long ago, and when that was.
func Last(root, ref string) (string, time.Time) {
	path, _, asked := read(root, ref)
	return path, asked
}

func read(root, ref string) (path string, pinned bool, asked time.Time) {
	n := name(ref)
	if n == "" || !ours(root, unix.S_IFDIR) || !ours(root+"/ref", unix.S_IFDIR) {
		return
	}
	fd, err := unix.Open(root+"/ref/"+n, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	b := make([]byte, maxRecord)
	size, err := unix.Read(fd, b)
	if err != nil || unix.Fstat(fd, &st) != nil || !good(&st, unix.S_IFREG) {
		return
	}
	line, rest, whole := strings.Cut(string(b[:max(size, 0)]), "\n")
	line, pin := strings.CutSuffix(line, " pinned")
	kind, file, ok := strings.Cut(line, "/")
	if !whole || rest != "" || !ok || strings.ContainsAny(file, "/ ") || strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz-") != "" || len(file) < 64 {
		return
	}
	if path = root + "/" + line; !ours(root+"/"+kind, unix.S_IFDIR) || !ours(path, unix.S_IFREG) {
		return "", false, asked
	}
	return path, pin, time.Unix(st.Mtim.Unix())
}

func ours(path string, kind uint32) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && good(&st, kind)
}

// good tells whether a file is of a kind, belongs to us, and can be changed by
// nobody else.
func good(st *unix.Stat_t, kind uint32) bool {
	return st.Mode&unix.S_IFMT == kind && int(st.Uid) == os.Geteuid() && st.Mode&0o022 == 0
}

// Store records that ref names the image TYPE/NAME. A record is a help: that it
// cannot be written is no error.
func Store(root, ref, image string, pinned bool) {
	n := name(ref)
	if n == "" || os.MkdirAll(root+"/ref", 0o700) != nil {
		return
	}
	if pinned {
		image += " pinned"
	}
	f, err := os.CreateTemp(root+"/ref", "tmp_")
	if err != nil {
		return
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(image + "\n")
	if f.Close() == nil && err == nil {
		os.Rename(f.Name(), root+"/ref/"+n)
	}
}

// Forget drops the record of ref.
func Forget(root, ref string) {
	if n := name(ref); n != "" {
		os.Remove(root + "/ref/" + n)
	}
}
