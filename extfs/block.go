package extfs

import (
	"fmt"
	"io"
)

const (
	extentMagic    = 0xf30a
	extentSize     = 12 // bytes of an entry, and of the header
	maxExtentDepth = 5  // the kernel's limit; a tree of 2^32 blocks needs no more
	maxInitialised = 32768
	directBlocks   = 12
	mapLevels      = 3 // indirect, doubly and triply indirect
)

// run is a stretch of a file: count blocks at block phys of the image, or
// zeros if phys is 0.
type run struct {
	phys, count uint64
}

// ReadAt reads content of a regular file from off. As io.ReaderAt it returns
// io.EOF when the file ends before p is full. Holes and unwritten extents read
// as zeros.
func (f *FS) ReadAt(in *Inode, p []byte, off int64) (int, error) {
	if !in.IsRegular() {
		return 0, fmt.Errorf("inode %d is not a regular file", in.Number)
	}
	if off < 0 {
		return 0, fmt.Errorf("cannot read inode %d at offset %d", in.Number, off)
	}
	return f.readContent(in, p, off)
}

// readContent is ReadAt for any inode that has content.
func (f *FS) readContent(in *Inode, p []byte, off int64) (int, error) {
	if off >= in.Size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > in.Size-off {
		p, end = p[:in.Size-off], io.EOF
	}
	if in.flags&flagInlineData != 0 {
		if err := f.readInline(in, p, off); err != nil {
			return 0, err
		}
		return len(p), end
	}
	bs, done := f.sb.BlockSize, 0
	for done < len(p) {
		rest := p[done:]
		first, skip := off/bs, off%bs
		want := (skip + int64(len(rest)) + bs - 1) / bs
		r, err := f.mapBlock(in, uint64(first), uint64(want))
		if err != nil {
			return done, err
		}
		if n := int64(r.count)*bs - skip; int64(len(rest)) > n {
			rest = rest[:n]
		}
		if r.phys == 0 {
			clear(rest)
		} else if err := readFull(f.r, rest, int64(r.phys)*bs+skip); err != nil {
			return done, fmt.Errorf("cannot read inode %d of the ext image: %w", in.Number, err)
		}
		done += len(rest)
		off += int64(len(rest))
	}
	return done, end
}

// readInline fills p from the content that lies in the inode itself: the first
// 60 bytes in place of the block map, the rest in an attribute.
func (f *FS) readInline(in *Inode, p []byte, off int64) error {
	content, err := in.inlineData()
	if err != nil {
		return err
	}
	if in.Size > int64(len(content)) {
		return corrupt("inode %d: %d bytes of content, %d of them stored", in.Number, in.Size, len(content))
	}
	copy(p, content[off:])
	return nil
}

// mapBlock finds where block l of a file lies. The run that it returns has at
// least one block and, but for zeros, at most want.
func (f *FS) mapBlock(in *Inode, l, want uint64) (run, error) {
	var r run
	var err error
	if in.flags&flagExtents != 0 {
		r, err = f.mapExtent(in, l)
	} else {
		r, err = f.mapPointer(in, l, want)
	}
	if err != nil {
		return run{}, fmt.Errorf("inode %d: %w", in.Number, err)
	}
	if r.phys != 0 {
		r.count = min(r.count, want)
		if r.phys >= f.sb.Blocks || r.count > f.sb.Blocks-r.phys {
			return run{}, corrupt("inode %d: content at block %d of %d", in.Number, r.phys, f.sb.Blocks)
		}
	}
	return r, nil
}

// mapExtent looks block l up in the extent tree of the inode.
func (f *FS) mapExtent(in *Inode, l uint64) (run, error) {
	node, depth := in.data[:], -1
	next := uint64(1) << 32 // first block behind l that something else maps
	for {
		n, d := int(le.Uint16(node[2:])), int(le.Uint16(node[6:]))
		if le.Uint16(node) != extentMagic || n > len(node)/extentSize-1 {
			return run{}, corrupt("an extent node with magic %#x and %d entries", le.Uint16(node), n)
		}
		// Security: the depth must fall by one each step, so that a tree
		// which points back to itself ends.
		if depth < 0 && d > maxExtentDepth || depth >= 0 && d != depth-1 {
			return run{}, corrupt("an extent node of depth %d below depth %d", d, depth)
		}
		depth = d
		i := searchExtent(node, n, l)
		if i < n {
			next = min(next, extentStart(node, i))
		}
		if i == 0 {
			return run{count: next - l}, nil
		}
		e := node[i*extentSize:][:extentSize]
		if depth == 0 {
			return leafRun(e, l, next)
		}
		var err error
		if node, err = f.block(uint64(le.Uint32(e[4:])) | uint64(le.Uint16(e[8:]))<<32); err != nil {
			return run{}, err
		}
	}
}

// extentStart returns the first block of entry i of a node.
func extentStart(node []byte, i int) uint64 {
	return uint64(le.Uint32(node[(i+1)*extentSize:]))
}

// searchExtent returns the number of entries that begin at or before l. Even if
// the entries are not sorted, the entry before the result begins at or before l
// and the one at the result behind it.
func searchExtent(node []byte, n int, l uint64) int {
	lo, hi := 0, n
	for lo < hi {
		mid := (lo + hi) / 2
		if extentStart(node, mid) > l {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// leafRun returns the part of extent e from block l on; next bounds a hole
// behind it.
func leafRun(e []byte, l, next uint64) (run, error) {
	start, count := uint64(le.Uint32(e)), uint64(le.Uint16(e[4:]))
	phys := uint64(le.Uint32(e[8:])) | uint64(le.Uint16(e[6:]))<<32
	unwritten := count > maxInitialised
	if unwritten {
		count -= maxInitialised
	}
	if count == 0 || phys == 0 {
		return run{}, corrupt("an extent of %d blocks at block %d", count, phys)
	}
	if l >= start+count {
		return run{count: next - l}, nil
	}
	r := run{phys: phys + l - start, count: min(start+count, next) - l}
	if unwritten {
		r.phys = 0
	}
	return r, nil
}

// mapPointer looks block l up in the block map of the inode: 12 direct
// pointers, then trees of one, two and three levels.
func (f *FS) mapPointer(in *Inode, l, want uint64) (run, error) {
	if l < directBlocks {
		return pointerRun(in.data[:directBlocks*4], l, want), nil
	}
	l -= directBlocks
	per := uint64(f.sb.BlockSize / 4)
	span := uint64(1)
	for level := 1; level <= mapLevels; level++ {
		below := span // blocks below one pointer of the top block
		span *= per
		if l >= span {
			l -= span
			continue
		}
		ptr := le.Uint32(in.data[(directBlocks+level-1)*4:])
		for {
			if ptr == 0 {
				return run{count: below*per - l}, nil
			}
			node, err := f.block(uint64(ptr))
			if err != nil {
				return run{}, err
			}
			if below == 1 {
				return pointerRun(node, l, want), nil
			}
			ptr = le.Uint32(node[l/below*4:])
			l %= below
			below /= per
		}
	}
	return run{}, corrupt("block %d is beyond a block map", l)
}

// pointerRun returns the run that begins at pointer i of a list, at most want
// blocks long.
func pointerRun(list []byte, i, want uint64) run {
	r := run{phys: uint64(le.Uint32(list[i*4:])), count: 1}
	for n := uint64(len(list) / 4); i+r.count < n && r.count < want; r.count++ {
		p := uint64(le.Uint32(list[(i+r.count)*4:]))
		if r.phys == 0 && p != 0 || r.phys != 0 && p != r.phys+r.count {
			break
		}
	}
	return r
}
