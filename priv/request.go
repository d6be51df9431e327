package priv

import (
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"slices"

	"singularity/linux/script"
)

// Verb says what is asked of the helper.
type Verb uint8

// The verbs. A new one gets a number here, a row in the table verbs, and a field of
// Request with what it needs.
const (
	StartVerb Verb = iota + 1 // a container
	JoinVerb                  // a process in a container that runs
	RootVerb                  // the root directory of such a container
	NetVerb                   // a network namespace, attached to networks of the administrator
)

// maxRequest bounds a request, in bytes: the kernel takes arguments and
// environment of at most 6 MiB.
const maxRequest = 16 << 20

// maxFDs bounds the descriptors of a request; the kernel passes at most 253.
const maxFDs = 64

// Request is what the unprivileged side asks for. Of the fields for verbs only that
// of Verb is part of it.
type Request struct {
	Verb Verb
	// FDs are the numbers by which the request means the descriptors that come
	// with it, in that order. They are above 2 and below maxNumber.
	FDs   []int
	Start Start
	Join  Join  // RootVerb needs its Process alone
	Nets  []Net // the networks, the first of which is eth0
}

// maxNumber is above every number of a descriptor.
const maxNumber = 1024

// Image is a file or directory that the container is made of.
type Image struct {
	FD     int    // what was opened, also when the image is served
	Format string // one of conf.Format...
}

// Start asks for a container: the steps by which package container makes it, of
// which the helper accepts those of check.go.
type Start struct {
	// PID makes a PID namespace.
	PID bool
	// Report is the descriptor that a failed step is reported on, as package
	// script does.
	Report int
	// Caps are the capabilities that the program shall have. Those that the
	// administrator did not grant are refused.
	Caps uint64
	// Images are all files that the container is made of.
	Images []Image
	// Kernel, if not nil, has the kernel mount the first image.
	Kernel *Kernel
	// Network is the network namespace that the container begins in, if not empty: as
	// the keeper that a NetVerb made calls it, or a path that the administrator names.
	Network string
	Steps   script.Listing
}

// FS is what a partition holds that the kernel may mount.
type FS uint8

// The kinds of partitions; 0 is none of them.
const (
	SquashfsFS FS = iota + 1
	Ext3FS
	CryptFS // LUKS2 with a squashfs in it
)

// KeySize is how many bytes a key is passed on with; the first of them are it.
const KeySize = 64

// Kernel asks for a mount by the kernel of a partition of the first image.
type Kernel struct {
	FS        FS
	Off, Size uint64
	Mount     int // the number that the mount gets
	// Tree wants what is read checked by the hash tree, of root's images too.
	Tree bool
	// Key is a pipe with the volume key of a CryptFS, in KeySize bytes.
	Key int
}

var errRequest = errors.New("the request is not well formed")

// Encode returns r as bytes.
func (r *Request) Encode() []byte {
	c := &codec{}
	c.request(r)
	return c.data
}

// Decode reads what Encode wrote, and nothing else.
func Decode(b []byte) (*Request, error) {
	c, r := &codec{data: b, reading: true}, new(Request)
	c.request(r)
	if c.bad || len(c.data) > 0 {
		return nil, errRequest
	}
	return r, nil
}

func (c *codec) request(r *Request) {
	c.values(&r.Verb, &r.FDs)
	if n := int(r.Verb) - 1; n >= 0 && n < len(verbs) {
		c.values(verbs[n].needs(r))
	} else {
		c.fail()
	}
}

// codec writes or reads values, one after another: numbers as unsigned varints,
// texts and lists with their length before them, and structs field by field, as
// their types have them. What is behind a pointer may be missing. Fields that are
// not exported are no part of it.
//
// Security: what it reads comes from the caller. A length is held against what is
// left of the message before anything is allocated; every number must have its
// shortest form and fit its type, and nothing may be left over.
type codec struct {
	data    []byte // written so far, or still to be read
	reading bool
	bad     bool
}

func (c *codec) fail() { c.bad, c.data = true, nil }

// values writes or reads what the pointers lead to.
func (c *codec) values(pointers ...any) {
	for _, p := range pointers {
		c.value(reflect.ValueOf(p).Elem())
	}
}

func (c *codec) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(c.flag(v.Bool()))
	case reflect.Int:
		v.SetInt(int64(c.number(uint64(v.Int()), math.MaxInt)))
	case reflect.Uint8, reflect.Uint16, reflect.Uint64:
		v.SetUint(c.number(v.Uint(), math.MaxUint64>>(64-v.Type().Bits())))
	case reflect.String:
		text := c.bytes([]byte(v.String()))
		if v.SetString(string(text)); slices.Contains(text, 0) {
			c.fail() // it has no end there
		}
	case reflect.Slice, reflect.Array:
		c.list(v)
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Field(i); field.CanSet() {
				c.value(field)
			}
		}
	case reflect.Pointer:
		there := c.flag(!v.IsNil())
		if there && c.reading {
			v.Set(reflect.New(v.Type().Elem()))
		}
		if there {
			c.value(v.Elem())
		}
	}
}

// number writes n, or reads a number that is not above most.
func (c *codec) number(n, most uint64) uint64 {
	if !c.reading {
		c.data = binary.AppendUvarint(c.data, n)
		return n
	}
	n, size := binary.Uvarint(c.data)
	if size <= 0 || size > 1 && c.data[size-1] == 0 || n > most {
		c.fail()
		return 0
	}
	c.data = c.data[size:]
	return n
}

func (c *codec) flag(on bool) bool {
	if on {
		return c.number(1, 1) == 1
	}
	return c.number(0, 1) == 1
}

// size is the length of a text or list, each of whose values takes one byte at least.
func (c *codec) size(n int) int {
	n = int(c.number(uint64(n), maxRequest))
	if c.reading && n > len(c.data) {
		c.fail()
		return 0
	}
	return n
}

func (c *codec) bytes(b []byte) []byte {
	n := c.size(len(b))
	if c.reading {
		b, c.data = c.data[:n:n], c.data[n:]
		return b
	}
	c.data = append(c.data, b...)
	return b
}

func (c *codec) list(v reflect.Value) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		v.SetBytes(c.bytes(v.Bytes()))
		return
	}
	n := v.Len()
	if v.Kind() == reflect.Slice {
		n = c.size(n)
	}
	for i := 0; i < n && !c.bad; i++ {
		if i == v.Len() { // it is read
			v.Grow(1)
			v.SetLen(i + 1)
		}
		c.value(v.Index(i))
	}
}
