package hot

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"singularity/squashfs"
)

// WriterName is the first argument of a writer process: a word that no verb is.
const WriterName = "@hot"

// Descriptors of a writer.
const (
	messageFD = 3
	imageFD   = 4
	dirFD     = 5
)

// WriterMain is the life of a writer process. It works when nobody else wants the
// processor or the disk, and leaves a whole file or none.
func WriterMain(args []string, open func(format int, r *io.SectionReader) (any, error)) int {
	unix.Setpriority(unix.PRIO_PROCESS, 0, 19)
	const idle = 3 << 13 // IOPRIO_CLASS_IDLE
	unix.Syscall(unix.SYS_IOPRIO_SET, 1, 0, idle)
	if write(args, open) != nil {
		return 255
	}
	return 0
}

func write(args []string, open func(int, *io.SectionReader) (any, error)) error {
	var n [5]int64 // format, offset, size, limit (below 0 for the order alone), 1 if the old file is damaged
	if len(args) != len(n) {
		return errFile
	}
	for i := range n {
		var err error
		if n[i], err = strconv.ParseInt(args[i], 10, 64); err != nil {
			return err
		}
	}
	message, err := io.ReadAll(io.LimitReader(os.NewFile(messageFD, "message"), maxMessage+1))
	if err != nil {
		return err
	}
	identity, ids, err := decodeMessage(message)
	if err != nil {
		return err
	}
	image := Image{File: os.NewFile(imageFD, "image"), Off: n[1], Size: n[2]}
	fsys, err := open(int(n[0]), io.NewSectionReader(image.File, image.Off, image.Size))
	if err != nil {
		return err
	}
	r, ok := fsys.(*squashfs.Reader)
	if !ok {
		return errFile
	}
	unchanged := func() bool {
		now, err := image.identity(string(identity[min(identitySize, len(identity)):]))
		return err == nil && bytes.Equal(now, identity)
	}
	w := writer{dir: dirFD, r: r, limit: max(n[3], -n[3]), blocks: n[3] > 0, anew: n[4] == 1, unchanged: unchanged}
	return w.write(identity, ids)
}

type writer struct {
	dir    int
	r      *squashfs.Reader
	limit  int64 // of all files
	blocks bool
	anew   bool // write in any case
	// unchanged tells whether the image is still the one of the identity.
	unchanged func() bool
}

var errBusy = errors.New("somebody else writes this file")

// write makes the file of identity.
func (w *writer) write(identity []byte, ids []squashfs.BlockID) error {
	name := fileName(identity)
	if err := w.clear(name); err != nil {
		return err
	}
	if !w.anew && w.there(identity, ids) {
		return nil // somebody was faster
	}
	// The name is not to be guessed only because it must not be taken.
	temp := prefix + strings.TrimSuffix(name, suffix) + "." + itoa(os.Getpid()) + "." + strconv.FormatInt(time.Now().UnixNano(), 36)
	fd, err := unix.Openat(w.dir, temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), temp)
	defer f.Close()
	err = w.fill(f, identity, ids)
	if err == nil {
		err = unix.Renameat(w.dir, temp, w.dir, name)
	}
	if err != nil {
		unix.Unlinkat(w.dir, temp, 0)
		return err
	}
	return evict(w.dir, w.limit, name)
}

// clear removes what writers left that were killed, and makes sure that no other
// one writes the same file now: of many starts at once, one is enough.
func (w *writer) clear(name string) error {
	_, partial, err := list(w.dir)
	if err != nil {
		return err
	}
	for _, f := range partial {
		switch {
		case time.Since(f.used) > staleTime:
			unix.Unlinkat(w.dir, f.name, 0)
		case strings.HasPrefix(f.name, prefix+strings.TrimSuffix(name, suffix)+"."):
			return errBusy
		}
	}
	return nil
}

// there tells whether the file has all that this writer would put there.
func (w *writer) there(identity []byte, ids []squashfs.BlockID) bool {
	fd, t, err := openFile(w.dir, identity)
	if err != nil {
		return false
	}
	unix.Close(fd)
	for _, id := range ids {
		if _, ok := t.byID[id]; !ok {
			return false
		}
	}
	return !w.blocks || !t.lacks()
}

// fill writes the content, then the head in front of it. A file without its head
// is not a file of ours.
func (w *writer) fill(f *os.File, identity []byte, ids []squashfs.BlockID) error {
	t := &table{identity: identity}
	left, err := w.room()
	if err != nil {
		return err
	}
	off := int64(headerSize + len(identity) + len(ids)*entrySize)
	left -= off
	if left < 0 {
		return unix.ENOSPC
	}
	buf := make([]byte, w.r.Superblock().BlockSize)
	for _, id := range ids {
		e := entry{id: id}
		// One that is stored as it is comes as fast from the image.
		if w.blocks && id.Compressed() && left >= int64(len(buf)) {
			n, err := w.r.ReadBlock(id, buf)
			if err != nil {
				return err
			}
			if _, err := f.WriteAt(buf[:n], off); err != nil {
				return err
			}
			e.length, e.crc = uint32(n), checksum(buf[:n])
			off, left = off+int64(n), left-int64(n)
		}
		t.entries = append(t.entries, e)
	}
	if !w.unchanged() {
		return errFresh
	}
	_, err = f.WriteAt(t.encode(), 0)
	return err
}

// room returns how large a file may become: half of all, so that another one has
// a place beside it, and a small part of what the disk has left.
func (w *writer) room() (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(w.dir, &st); err != nil {
		return 0, err
	}
	free := int64(min(st.Bavail, 1<<40)) * st.Bsize
	return min(w.limit/2, free/8), nil
}
