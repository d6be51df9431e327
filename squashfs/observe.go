package squashfs

// BlockID names the decompressed form of a block. Both halves are needed: a
// crafted image can claim the same place with different sizes.
type BlockID struct {
	Pos  int64
	Size uint32 // as in the block list, with the stored bit; or MetadataBlock
}

// MetadataBlock is the Size of a block of metadata, which has its real one in
// front of it. No data block is that large.
const MetadataBlock = ^uint32(0)

// Observer watches what a reader needs, and may have some of it at hand. Its
// methods are called by several goroutines at once, before a read goes on, and so
// must not wait for anything.
type Observer interface {
	// Touched hears of each data block that is read, whether it is in the cache
	// or not, and of each block of metadata that is not.
	Touched(id BlockID)
	// Load copies the decompressed form of a data block to p, which has room for
	// it, and returns its length; false if it must come from the image.
	//
	// Security: the reader takes these bytes for the image's own.
	Load(id BlockID, p []byte) (int, bool)
}

// Compressed tells whether id names a data block that must be decompressed.
func (id BlockID) Compressed() bool { return id.Size != MetadataBlock && id.Size&blockStored == 0 }

type observed struct{ o Observer }

// Observe sets the observer; nil ends it.
func (r *Reader) Observe(o Observer) {
	if o == nil {
		r.observer.Store(nil)
		return
	}
	r.observer.Store(&observed{o})
}

// Prefetch brings a block to the cache, if it is not there, untold to the
// observer. The content of a data block comes from the image if data is nil. The
// id may be anything: one that no block can have gives an error.
func (r *Reader) Prefetch(id BlockID, data []byte) error {
	if id.Size == MetadataBlock {
		_, err := r.metaBlockUntold(id.Pos)
		return err
	}
	if err := r.checkBlock(id); err != nil {
		return err
	}
	e, err := r.blocks.acquire(id, true, func(id BlockID, slot []byte) (int, error) {
		if data != nil && len(data) <= len(slot) {
			return copy(slot, data), nil
		}
		return r.ReadBlock(id, slot)
	})
	if err == nil {
		r.blocks.release(e)
	}
	return err
}

// Cached tells whether a block is in the cache or on its way there.
func (r *Reader) Cached(id BlockID) bool {
	if id.Size == MetadataBlock {
		_, ok := r.meta.get(id.Pos)
		return ok
	}
	r.blocks.mu.Lock()
	defer r.blocks.mu.Unlock()
	return r.blocks.entries[id] != nil
}
