package priv

import "encoding/binary"

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
		*v = string(b)
		for _, x := range b {
			if x == 0 {
				c.fail()
				return
			}
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
