package priv

import (
	"encoding/binary"
	"errors"
	"slices"

	"singularity/linux/script"
)

// Verb says what is asked of the helper.
type Verb uint8

// The verbs. A new one gets a number here, a row in the table verbs, a field of
// Request with what it needs, and a function that reads and writes that field.
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

// Request is what the unprivileged side asks for. Exactly one of the fields for
// verbs is set, that of Verb.
type Request struct {
	Verb Verb
	// FDs are the numbers by which the request means the descriptors that come
	// with it, in that order. They are above 2 and below maxNumber.
	FDs   []int
	Start *Start
	Join  *Join // of RootVerb too
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
	Steps   *script.Listing
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
	num(c, &r.Verb)
	list(c, &r.FDs, func(fd *int) { num(c, fd) })
	if n := int(r.Verb) - 1; n >= 0 && n < len(verbs) {
		verbs[n].code(c, r)
	} else {
		c.fail()
	}
}

// optional is a value that may be nil.
func optional[T any](c *codec, v **T, value func(*T)) {
	there := *v != nil
	if c.flag(&there); there && !c.bad {
		if c.reading {
			*v = new(T)
		}
		value(*v)
	}
}

func (c *codec) start(r *Request) {
	if c.reading {
		r.Start = &Start{Steps: new(script.Listing)}
	}
	s := r.Start
	c.flag(&s.PID)
	num(c, &s.Report)
	num(c, &s.Caps)
	list(c, &s.Images, func(im *Image) {
		num(c, &im.FD)
		c.text(&im.Format)
	})
	optional(c, &s.Kernel, func(k *Kernel) {
		num(c, &k.FS)
		num(c, &k.Off)
		num(c, &k.Size)
		num(c, &k.Mount)
		c.flag(&k.Tree)
		num(c, &k.Key)
	})
	c.text(&s.Network)
	c.listing(s.Steps)
}

func (c *codec) listing(l *script.Listing) {
	list(c, &l.Memory, c.bytes)
	list(c, &l.Links, func(k *script.Link) {
		num(c, &k.At)
		num(c, &k.To)
	})
	list(c, &l.Steps, c.step)
	optional(c, &l.Program, func(p *script.Program) {
		list(c, &p.Paths, func(r *script.Ref) { num(c, r) })
		for _, r := range []*script.Ref{&p.Argv, &p.Envp, &p.Shell, &p.Other} {
			num(c, r)
		}
		num(c, &p.OtherFD)
	})
}

func (c *codec) step(s *script.Step) {
	num(c, &s.Op)
	num(c, &s.Slots)
	num(c, &s.Refs)
	c.flag(&s.Ignore)
	c.flag(&s.Want)
	num(c, &s.SkipOK)
	num(c, &s.SkipNo)
	num(c, &s.Nr)
	num(c, &s.Expect)
	for i := range s.Args {
		num(c, &s.Args[i])
	}
}

// codec writes or reads values, one after another: numbers as unsigned varints,
// texts and lists with their length before them. One function for each type says
// in which order, for both directions.
//
// Security: what it reads comes from the caller. A length is held against what is
// left of the message before anything is allocated; every number must have its
// shortest form and fit its type, and nothing may be left over.
type codec struct {
	data    []byte // written so far, or still to be read
	reading bool
	bad     bool
}

func (c *codec) uvarint(v *uint64) {
	if !c.reading {
		c.data = binary.AppendUvarint(c.data, *v)
		return
	}
	n := 0
	if *v, n = binary.Uvarint(c.data); n <= 0 || n > 1 && c.data[n-1] == 0 {
		c.fail()
		*v = 0
		return
	}
	c.data = c.data[n:]
}

func (c *codec) fail() { c.bad, c.data = true, nil }

// num reads or writes a number of any type.
func num[T ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~int](c *codec, v *T) {
	u := uint64(*v)
	if c.uvarint(&u); c.reading {
		if *v = T(u); uint64(*v) != u || *v < 0 {
			c.fail()
		}
	}
}

func (c *codec) flag(v *bool) {
	n := uint8(0)
	if *v {
		n = 1
	}
	if num(c, &n); n > 1 {
		c.fail()
	}
	*v = n == 1
}

func (c *codec) bytes(v *[]byte) {
	n := len(*v)
	num(c, &n)
	switch {
	case !c.reading:
		c.data = append(c.data, *v...)
	case n > len(c.data):
		c.fail()
	default:
		*v, c.data = c.data[:n:n], c.data[n:]
	}
}

// text is a string without a zero byte.
func (c *codec) text(v *string) {
	b := []byte(*v)
	if c.bytes(&b); c.reading {
		if *v = string(b); slices.Contains(b, 0) {
			c.fail()
		}
	}
}

// list is a list of values, each of which takes one byte at least.
func list[T any](c *codec, v *[]T, value func(*T)) {
	n := len(*v)
	if num(c, &n); c.reading {
		if n > len(c.data) {
			c.fail()
			return
		}
		*v = nil
	}
	for i := 0; i < n && !c.bad; i++ {
		if c.reading {
			*v = append(*v, *new(T))
		}
		value(&(*v)[i])
	}
}
