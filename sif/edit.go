package sif

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// Editor changes an image in place. Each method is one complete change: when it
// returns without error, the change is on disk. After an error of the disk the
// image may be damaged, after any other error it is as before. The caller keeps
// others from changing the file meanwhile. Every change of a signed group breaks
// its signatures.
type Editor struct {
	// Time is the time of the changes; zero means now. It is ignored for a
	// deterministic image, which stays one.
	Time time.Time

	w    Storage
	f    *File
	size int64
}

// Edit opens the image of size bytes in w for changes, with the checks of Open.
func Edit(w Storage, size int64) (*Editor, error) {
	f, err := Open(w, size)
	if err != nil {
		return nil, err
	}
	return &Editor{w: w, f: f, size: size}, nil
}

// File returns the image as it is after the last change.
func (e *Editor) File() *File { return e.f }

// Add appends an object and returns it. It takes the first unused descriptor, so
// that the id of a deleted object is used again, and the space after the last
// object, so that holes stay but a deleted last object is overwritten. A full
// table is an error: it cannot grow.
func (e *Editor) Add(in Input) (Object, error) {
	list, err := e.AddAll(func(added []Object) []Input { return []Input{in}[len(added):] })
	if err != nil {
		return Object{}, err
	}
	return list[0], nil
}

// AddAll adds several objects in one change. It calls next with the objects
// written so far until that returns no more.
func (e *Editor) AddAll(next func(added []Object) []Input) ([]Object, error) {
	return e.addTo(e.draft(), next)
}

func (e *Editor) addTo(t *draft, next func(added []Object) []Input) ([]Object, error) {
	var list []Object
	for inputs := next(nil); len(inputs) > 0; inputs = next(list) {
		for _, in := range inputs {
			if e.f.header.Deterministic() {
				in.Time = time.Time{}
			}
			o, err := t.add(in)
			if err != nil {
				return nil, e.giveUp(err)
			}
			list = append(list, o)
		}
	}
	if _, err := t.check(); err != nil {
		return nil, e.giveUp(err)
	}
	if err := e.commit(t); err != nil {
		return nil, fmt.Errorf("cannot add object: %w", err)
	}
	return list, nil
}

// Replace adds the objects in and removes those numbered old, in one change. The
// data of the latter stay where they are until a later change.
func (e *Editor) Replace(old []uint32, in ...Input) ([]Object, error) {
	t := e.draft()
	for _, id := range old {
		i, ok := e.f.byID[id]
		if !ok {
			return nil, e.giveUp(e.missing(id))
		}
		if isPrimary(e.f.objects[i]) {
			t.header.Arch = UnknownArch
		}
		clear(t.slot(e.f.slots[i]))
		t.header.FreeSlots++
	}
	return e.addTo(t, func(added []Object) []Input { return in[len(added):] })
}

// giveUp gives back the space of objects that nothing refers to yet.
func (e *Editor) giveUp(err error) error {
	_ = e.w.Truncate(e.size)
	return fmt.Errorf("cannot add object: %w", err)
}

// DeleteOptions says what happens to the data of a deleted object. By default
// they stay in the file, readable by anyone, until a later object overwrites them.
type DeleteOptions struct {
	Zero    bool // overwrite the data
	Compact bool // cut the file after the last object that remains
}

// Delete removes the object numbered id.
func (e *Editor) Delete(id uint32, o DeleteOptions) error {
	if err := e.delete(id, o); err != nil {
		return fmt.Errorf("cannot delete object %d: %w", id, err)
	}
	return nil
}

func (e *Editor) delete(id uint32, opts DeleteOptions) error {
	i, ok := e.f.byID[id]
	if !ok {
		return e.missing(id)
	}
	o := e.f.objects[i]
	t := e.draft()
	clear(t.slot(e.f.slots[i]))
	t.header.FreeSlots++
	if isPrimary(o) {
		t.header.Arch = UnknownArch
	}
	end := t.header.DataOff
	for _, other := range e.f.objects {
		if other.ID != id {
			end = max(end, other.Off+other.Size)
		}
	}
	if opts.Compact {
		t.header.DataSize = end - t.header.DataOff
	}
	// The table first: a crash in between leaves data that nothing refers to,
	// never an object whose data is gone.
	if err := e.commit(t); err != nil {
		return err
	}
	if opts.Zero {
		if err := writeZeros(e.w, o.Off, o.Size); err != nil {
			return err
		}
	}
	if opts.Compact && end < e.size {
		if err := e.w.Truncate(end); err != nil {
			return err
		}
		e.size = end
	}
	if opts.Zero || opts.Compact {
		return e.w.Sync()
	}
	return nil
}

// SetPrimary makes the system partition numbered id the one that runs; the one
// that was primary becomes an ordinary system partition.
func (e *Editor) SetPrimary(id uint32) error {
	if err := e.setPrimary(id); err != nil {
		return fmt.Errorf("cannot make object %d the primary partition: %w", id, err)
	}
	return nil
}

func (e *Editor) setPrimary(id uint32) error {
	o, ok := e.f.Object(id)
	if !ok {
		return e.missing(id)
	}
	p, ok := o.Partition()
	switch {
	case !ok:
		return fmt.Errorf("it is no partition but %s", o.Type)
	case p.Type == PartPrimary:
		return nil
	case p.Type != PartSystem:
		return fmt.Errorf("it is no system partition but of type %s", p.Type)
	}
	t := e.draft()
	for i, other := range e.f.objects {
		if isPrimary(other) {
			t.setPartType(e.f.slots[i], PartSystem)
		}
	}
	t.setPartType(e.f.slots[e.f.byID[id]], PartPrimary)
	t.header.Arch = p.Arch
	return e.commit(t)
}

// setPartType changes nothing else of the slot than the type and the time.
func (t *draft) setPartType(slot int, to PartType) {
	b := t.slot(slot)
	binary.LittleEndian.PutUint32(b[205:], uint32(to))
	binary.LittleEndian.PutUint64(b[49:], uint64(t.now))
}

// draft starts a change: a copy of the image's header and table.
func (e *Editor) draft() *draft {
	h := e.f.header
	now := seconds(e.Time)
	if h.Deterministic() {
		now = noTime
	}
	h.Modified = now
	// Security: a data offset far behind the end would make the next object
	// land there.
	if h.DataOff < h.tableEnd() || h.DataOff > e.size {
		h.DataOff = h.tableEnd()
	}
	end := h.DataOff
	for _, o := range e.f.objects {
		end = max(end, o.Off+o.Size)
	}
	return &draft{w: e.w, head: e.f.head, header: h, table: slices.Clone(e.f.table), end: end, size: e.size, now: now}
}

func (e *Editor) commit(t *draft) error {
	f, err := t.commit()
	if err != nil {
		return err
	}
	e.f, e.size = f, t.size
	return nil
}

func (e *Editor) missing(id uint32) error {
	return fmt.Errorf("the image has no object %d", id)
}
