package sif

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// checkHeader decodes the header of an image of size bytes. What it returns is
// safe to allocate and to read by: the table lies inside the file.
func checkHeader(b *[headerSize]byte, size int64) (Header, error) {
	if string(b[32:42]) != magic {
		return Header{}, fmt.Errorf("%w: no SIF_MAGIC at offset 32", ErrNotSIF)
	}
	if string(b[42:45]) != version {
		return Header{}, fmt.Errorf("incompatible SIF version %q, want \"01\"", b[42:45])
	}
	h := decodeHeader(b)
	switch {
	// Security: the counts decide how much is allocated and read.
	case h.TotalSlots < 0 || h.TotalSlots > maxSlots:
		return h, fmt.Errorf("damaged SIF image: header claims %d descriptors, want at most %d", h.TotalSlots, maxSlots)
	case h.FreeSlots < 0 || h.FreeSlots > h.TotalSlots:
		return h, fmt.Errorf("damaged SIF image: header claims %d free of %d descriptors", h.FreeSlots, h.TotalSlots)
	case h.TableOff < headerSize || h.TableOff > size:
		return h, fmt.Errorf("damaged SIF image: descriptor table at offset %d of a file of %d bytes", h.TableOff, size)
	case h.TableSize < h.TotalSlots*slotSize:
		return h, fmt.Errorf("damaged SIF image: descriptor table of %d bytes is too small for %d descriptors", h.TableSize, h.TotalSlots)
	case h.TotalSlots*slotSize > size-h.TableOff:
		return h, fmt.Errorf("damaged SIF image: descriptor table ends at %d, after the end of the file at %d", h.tableEnd(), size)
	}
	return h, nil
}

// tableEnd is the end of the last slot. The claimed table size may be larger and
// is not relied on.
func (h Header) tableEnd() int64 { return h.TableOff + h.TotalSlots*slotSize }

// readSlots decodes the used slots.
func (f *File) readSlots() error {
	f.byID = make(map[uint32]int)
	for i := range int(f.header.TotalSlots) {
		b := f.table[i*slotSize : (i+1)*slotSize]
		switch b[4] {
		case 0:
			continue
		case 1:
		default:
			return fmt.Errorf("descriptor %d has used flag %d, want 0 or 1", i, b[4])
		}
		o, err := decodeSlot(b)
		if err != nil {
			return err
		}
		// Security: with two objects of one id, reader and verifier could
		// each take another one.
		if _, ok := f.byID[o.ID]; ok {
			return fmt.Errorf("object id %d is used twice", o.ID)
		}
		if int64(o.ID) != int64(i)+1 {
			f.warn("object %d is in descriptor %d, where id %d belongs", o.ID, i, i+1)
		}
		f.byID[o.ID] = len(f.objects)
		f.objects = append(f.objects, o)
		f.slots = append(f.slots, i)
	}
	unused := f.header.TotalSlots - int64(len(f.objects))
	if f.header.FreeSlots != unused {
		f.warn("header claims %d free descriptors, found %d", f.header.FreeSlots, unused)
		f.header.FreeSlots = unused
	}
	return nil
}

// checkObjects checks places, links and names.
func (f *File) checkObjects(size int64) error {
	end := f.header.tableEnd()
	for _, o := range f.objects {
		switch {
		case o.Off < end:
			return fmt.Errorf("object %d starts at %d, before the end of the descriptor table at %d", o.ID, o.Off, end)
		case o.Size < 0:
			return fmt.Errorf("object %d has size %d", o.ID, o.Size)
		// Security: written so that it cannot overflow.
		case o.Off > size || o.Size > size-o.Off:
			return fmt.Errorf("object %d of %d bytes at %d does not fit into a file of %d bytes", o.ID, o.Size, o.Off, size)
		}
		if d, ok := o.Digest(); !ok && (o.Type == DataOCIRootIndex || o.Type == DataOCIBlob) {
			return fmt.Errorf("object %d has digest %q, want sha256: and 64 hex digits", o.ID, string(d))
		}
	}
	if err := f.checkOverlap(); err != nil {
		return err
	}
	if err := f.checkLinks(); err != nil {
		return err
	}
	f.checkNames()
	f.checkSummary()
	return nil
}

// checkOverlap refuses objects that share bytes. Security: two descriptions of
// the same bytes let one signed object be shown as another.
func (f *File) checkOverlap() error {
	var at []*Object
	for i := range f.objects {
		if f.objects[i].Size > 0 {
			at = append(at, &f.objects[i])
		}
	}
	slices.SortFunc(at, func(a, b *Object) int { return cmp.Compare(a.Off, b.Off) })
	for i := 1; i < len(at); i++ {
		if a, b := at[i-1], at[i]; a.Off+a.Size > b.Off {
			return fmt.Errorf("objects %d (%d-%d) and %d (%d-%d) overlap", a.ID, a.Off, a.Off+a.Size, b.ID, b.Off, b.Off+b.Size)
		}
	}
	return nil
}

// checkLinks warns of links to nothing and refuses chains of links that end
// where they began. A link of an object to itself is only odd.
func (f *File) checkLinks() error {
	groups := make(map[uint32]bool)
	for _, o := range f.objects {
		groups[o.Group] = true
	}
	delete(groups, 0)
	next := make([]int, len(f.objects))
	for i, o := range f.objects {
		next[i] = -1
		target, ok := f.byID[o.Link]
		switch {
		case o.LinkIsGroup:
			if !groups[o.Link] {
				f.warn("object %d is linked to group %d, which has no objects", o.ID, o.Link)
			}
		case o.Link == 0:
		case o.Link == o.ID:
			f.warn("object %d is linked to itself", o.ID)
		case !ok:
			f.warn("object %d is linked to object %d, which does not exist", o.ID, o.Link)
		default:
			next[i] = target
		}
	}
	return checkCycles(f.objects, next)
}

// checkCycles follows next, which holds one index or -1 for each object. Each
// object is visited once.
func checkCycles(objects []Object, next []int) error {
	visited := make([]int, len(objects)) // the walk that came by first
	for start := range objects {
		for i := start; i >= 0; i = next[i] {
			if visited[i] == start+1 {
				return fmt.Errorf("the links of object %d lead back to it", objects[i].ID)
			}
			if visited[i] != 0 {
				break
			}
			visited[i] = start + 1
		}
	}
	return nil
}

// checkNames warns of objects that Named will not return.
func (f *File) checkNames() {
	type key struct {
		t    DataType
		name string
	}
	count := make(map[key]int)
	for _, o := range f.objects {
		if o.Name == "" || o.Type != DataJSON && o.Type != DataGeneric {
			continue
		}
		k := key{o.Type, o.Name}
		if count[k]++; count[k] == 2 {
			f.warn("several objects of type %s are named %q; none is used", o.Type, o.Name)
		}
	}
}

// checkSummary warns of what the header and the partitions tell differently.
func (f *File) checkSummary() {
	h := f.header
	if h.DataOff < h.tableEnd() || h.DataSize < 0 || h.DataSize > math.MaxInt64-h.DataOff {
		f.warn("header claims data of %d bytes at %d, the descriptor table ends at %d", h.DataSize, h.DataOff, h.tableEnd())
	}
	var primary []string
	arch := UnknownArch
	for _, o := range f.objects {
		if isPrimary(o) {
			p, _ := o.Partition()
			arch = p.Arch
			primary = append(primary, fmt.Sprint(o.ID))
		}
	}
	if len(primary) > 1 {
		f.warn("several primary system partitions: objects %s", strings.Join(primary[:min(len(primary), 10)], ", "))
	} else if h.Arch != arch {
		f.warn("header claims architecture %s, the primary system partition %s", h.Arch, arch)
	}
}
