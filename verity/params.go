package verity

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Params say where in an image the hash tree of a partition lies, and with which
// salt and root it is to be read. Whoever reads by them trusts where they come
// from.
type Params struct {
	Object    uint32 // id of the partition, for messages
	Off, Size int64  // of the hash area in the image, in bytes
	Salt      []byte
	Root      Digest
}

// Section returns a reader of the size bytes at off of image, which checks all
// it reads unless p is nil.
func (p *Params) Section(image io.ReaderAt, off, size int64) (*io.SectionReader, error) {
	data := io.NewSectionReader(image, off, size)
	if p == nil {
		return data, nil
	}
	r, err := NewReader(data, size, io.NewSectionReader(image, p.Off, p.Size), p.Size, p.Salt, p.Root)
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(named{r, p.Object}, 0, size), nil
}

// named adds the id of the partition to errors.
type named struct {
	*Reader
	object uint32
}

func (n named) ReadAt(p []byte, off int64) (int, error) {
	k, err := n.Reader.ReadAt(p, off)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("object %d: %w", n.object, err)
	}
	return k, err
}

// String returns p as ParseParams reads it; "-" for nil.
func (p *Params) String() string {
	if p == nil {
		return "-"
	}
	return fmt.Sprintf("%d:%d:%d:%x:%x", p.Object, p.Off, p.Size, p.Salt, p.Root)
}

var errParams = errors.New("no parameters of a hash tree")

// ParseParams reads what String wrote.
func ParseParams(s string) (*Params, error) {
	if s == "-" {
		return nil, nil
	}
	words := strings.Split(s, ":")
	if len(s) > 1024 || len(words) != 5 {
		return nil, errParams
	}
	id, err1 := strconv.ParseUint(words[0], 10, 32)
	off, err2 := strconv.ParseInt(words[1], 10, 64)
	size, err3 := strconv.ParseInt(words[2], 10, 64)
	salt, err4 := hex.DecodeString(words[3])
	root, err5 := hex.DecodeString(words[4])
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil || off < 0 || size < 0 || len(salt) > MaxSalt || len(root) != DigestSize {
		return nil, errParams
	}
	return &Params{Object: uint32(id), Off: off, Size: size, Salt: salt, Root: Digest(root)}, nil
}
