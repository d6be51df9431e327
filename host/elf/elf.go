// Package elf reads what the dynamic loader needs to know of an ELF file: for
// which machine it is, under which name it is found, which symbol versions it
// needs and which it offers.
//
// In: a file that a stranger may have made. Out: a File, or an error. The reader
// follows the program headers only, as the loader does, reads a few small
// pieces, each at most once per link of a bounded chain, and never allocates
// what a header claims. It knows both widths and both byte orders, so that a
// file for another machine is told from a damaged one.
//
// It follows the System V ABI (gABI 4.1) and the symbol versions of the Linux
// Standard Base.
package elf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strconv"
	"strings"
)

// Limits of what is looked at.
const (
	maxProgHeaders = 256
	maxDynamic     = 4096 // entries of the dynamic section
	maxVersions    = 4096 // records of symbol versions, all together
	maxName        = 256  // bytes of a name
)

// ErrFormat says that a file is no ELF file, or one that no loader would take.
var ErrFormat = errors.New("not a valid ELF file")

// Target is the machine that a file is for.
type Target struct {
	Wide    bool // 64 bits
	Big     bool // big-endian
	Machine uint16
}

// File is what is known of a file.
type File struct {
	Target
	// SOName is the name that programs ask for, "" if the file has none.
	SOName string
	// Needs are the symbol versions that the file must find in others, Offers
	// those that it has itself, e.g. "GLIBC_2.34".
	Needs, Offers []string
}

// Native returns what the programs of this machine are built for. The second
// result is false for a machine that is not known here.
func Native() (Target, bool) { return target(runtime.GOARCH) }

func target(arch string) (Target, bool) {
	switch arch {
	case "386":
		return Target{Machine: 3}, true
	case "amd64":
		return Target{Wide: true, Machine: 62}, true
	case "arm":
		return Target{Machine: 40}, true
	case "arm64":
		return Target{Wide: true, Machine: 183}, true
	case "ppc64":
		return Target{Wide: true, Big: true, Machine: 21}, true
	case "ppc64le":
		return Target{Wide: true, Machine: 21}, true
	case "s390x":
		return Target{Wide: true, Big: true, Machine: 22}, true
	case "riscv64":
		return Target{Wide: true, Machine: 243}, true
	case "loong64":
		return Target{Wide: true, Machine: 258}, true
	}
	return Target{}, false
}

// reader reads one file.
type reader struct {
	r     io.ReaderAt
	order binary.ByteOrder
	f     *File
	loads []load
	dyn   map[uint64]uint64 // the first value of each tag that matters
	left  int               // records of versions that may still be read
}

// load is a piece of the file that the loader maps.
type load struct{ off, addr, size uint64 }

// The tags of the dynamic section that matter.
const (
	tagStrTab  = 5
	tagSOName  = 14
	tagVerDef  = 0x6ffffffc
	tagVerNeed = 0x6ffffffe
)

// ReadTarget reads only for which machine a file is.
func ReadTarget(r io.ReaderAt) (Target, error) {
	f := reader{r: r, f: new(File)}
	_, err := f.header()
	return f.f.Target, err
}

// Read reads a file. A file without a dynamic section has neither name nor
// versions.
func Read(r io.ReaderAt) (*File, error) {
	f := reader{r: r, f: new(File), dyn: map[uint64]uint64{}, left: maxVersions}
	head, err := f.header()
	if err != nil {
		return nil, err
	}
	if err := f.programs(head); err != nil {
		return nil, err
	}
	if at, ok := f.dyn[tagSOName]; ok {
		if f.f.SOName, err = f.name(at); err != nil {
			return nil, err
		}
	}
	if err := f.needs(); err != nil {
		return nil, err
	}
	return f.f, f.offers()
}

func (f *reader) at(off uint64, n int) ([]byte, error) {
	if off > 1<<62 {
		return nil, ErrFormat
	}
	b := make([]byte, n)
	if _, err := f.r.ReadAt(b, int64(off)); err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil, ErrFormat
	} else if err != nil {
		return nil, err
	}
	return b, nil
}

// header reads the first bytes and returns all of them.
func (f *reader) header() ([]byte, error) {
	b, err := f.at(0, 20)
	if err != nil {
		return nil, err
	}
	if string(b[:4]) != "\x7fELF" || b[4] != 1 && b[4] != 2 || b[5] != 1 && b[5] != 2 {
		return nil, ErrFormat
	}
	f.order = binary.LittleEndian
	if f.f.Big = b[5] == 2; f.f.Big {
		f.order = binary.BigEndian
	}
	f.f.Wide = b[4] == 2
	f.f.Machine = f.order.Uint16(b[18:])
	size := 52
	if f.f.Wide {
		size = 64
	}
	return f.at(0, size)
}

// word reads an address or offset, which is as wide as the file.
func (f *reader) word(b []byte) uint64 {
	if f.f.Wide {
		return f.order.Uint64(b)
	}
	return uint64(f.order.Uint32(b))
}

// programs reads the program headers and the dynamic section.
func (f *reader) programs(head []byte) error {
	table, entry, count := uint64(f.order.Uint32(head[28:])), f.order.Uint16(head[42:]), f.order.Uint16(head[44:])
	size := 32
	if f.f.Wide {
		table, entry, count = f.order.Uint64(head[32:]), f.order.Uint16(head[54:]), f.order.Uint16(head[56:])
		size = 56
	}
	if count == 0 {
		return nil
	}
	if int(entry) != size || count > maxProgHeaders {
		return ErrFormat
	}
	b, err := f.at(table, size*int(count))
	if err != nil {
		return err
	}
	var dynamic load
	for ; len(b) > 0; b = b[size:] {
		l := load{f.word(b[4:]), f.word(b[8:]), f.word(b[16:])}
		if f.f.Wide {
			l = load{f.word(b[8:]), f.word(b[16:]), f.word(b[32:])}
		}
		switch f.order.Uint32(b) {
		case 1: // PT_LOAD
			f.loads = append(f.loads, l)
		case 2: // PT_DYNAMIC
			dynamic = l
		}
	}
	return f.dynamic(dynamic)
}

func (f *reader) dynamic(l load) error {
	size := 8
	if f.f.Wide {
		size = 16
	}
	n := min(l.size/uint64(size), maxDynamic)
	if n == 0 {
		return nil
	}
	b, err := f.at(l.off, int(n)*size)
	if err != nil {
		return err
	}
	for ; len(b) > 0; b = b[size:] {
		tag, value := f.word(b), f.word(b[size/2:])
		if tag == 0 {
			break
		}
		switch tag {
		case tagStrTab, tagSOName, tagVerDef, tagVerNeed:
			if _, ok := f.dyn[tag]; !ok {
				f.dyn[tag] = value
			}
		}
	}
	return nil
}

// offset tells where in the file an address is.
func (f *reader) offset(addr uint64) (uint64, error) {
	for _, l := range f.loads {
		if addr >= l.addr && addr-l.addr < l.size {
			return l.off + (addr - l.addr), nil
		}
	}
	return 0, ErrFormat
}

// name returns a string of the string table.
func (f *reader) name(at uint64) (string, error) {
	table, ok := f.dyn[tagStrTab]
	if !ok {
		return "", ErrFormat
	}
	off, err := f.offset(table + at)
	if err != nil {
		return "", err
	}
	b := make([]byte, maxName)
	n, err := f.r.ReadAt(b, int64(off&(1<<62-1)))
	if err != nil && err != io.EOF {
		return "", err
	}
	end := bytes.IndexByte(b[:n], 0)
	if end < 0 {
		return "", ErrFormat
	}
	return string(b[:end]), nil
}

// needs follows the chain of files, and for each the chain of versions. Every
// record is 16 bytes in all files.
func (f *reader) needs() error {
	at, ok := f.dyn[tagVerNeed]
	for ok {
		b, err := f.record(at, 16)
		if err != nil {
			return err
		}
		count, aux := f.order.Uint16(b[2:]), at+uint64(f.order.Uint32(b[8:]))
		for ; count > 0; count-- {
			v, err := f.record(aux, 16)
			if err != nil {
				return err
			}
			name, err := f.name(uint64(f.order.Uint32(v[8:])))
			if err != nil {
				return err
			}
			f.f.Needs = append(f.f.Needs, name)
			next := f.order.Uint32(v[12:])
			if next == 0 {
				break
			}
			aux += uint64(next)
		}
		next := f.order.Uint32(b[12:])
		at, ok = at+uint64(next), next != 0
	}
	return nil
}

// offers follows the chain of versions that the file defines; the first name of
// each is its own.
func (f *reader) offers() error {
	at, ok := f.dyn[tagVerDef]
	for ok {
		b, err := f.record(at, 20)
		if err != nil {
			return err
		}
		v, err := f.record(at+uint64(f.order.Uint32(b[12:])), 8)
		if err != nil {
			return err
		}
		name, err := f.name(uint64(f.order.Uint32(v)))
		if err != nil {
			return err
		}
		if f.order.Uint16(b[2:])&1 == 0 { // not the entry of the file itself
			f.f.Offers = append(f.f.Offers, name)
		}
		next := f.order.Uint32(b[16:])
		at, ok = at+uint64(next), next != 0
	}
	return nil
}

// record reads n bytes at an address, of which there is a bounded number.
func (f *reader) record(addr uint64, n int) ([]byte, error) {
	if f.left--; f.left < 0 {
		return nil, ErrFormat
	}
	off, err := f.offset(addr)
	if err != nil {
		return nil, err
	}
	return f.at(off, n)
}

// Glibc returns the newest version of the GNU C library in a list of symbol
// versions, as "2.34", or "" if there is none.
func Glibc(versions []string) string {
	best := ""
	for _, v := range versions {
		if s, ok := strings.CutPrefix(v, "GLIBC_"); ok && s[:min(1, len(s))] >= "0" && s[:min(1, len(s))] <= "9" && Newer(s, best) {
			best = s
		}
	}
	return best
}

// Newer tells whether version a, numbers with dots between them, comes after b.
func Newer(a, b string) bool {
	for a != "" || b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		m, _ := strconv.Atoi(x)
		n, _ := strconv.Atoi(y)
		if m != n {
			return m > n
		}
	}
	return false
}
