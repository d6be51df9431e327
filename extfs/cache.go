package extfs

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// cacheSize is the memory for metadata blocks, in bytes. Content of files does
// not pass through the cache: whoever asks for it caches it better.
const cacheSize = 1 << 20

// blockCache keeps metadata blocks: inode tables, directories, extent and
// indirect blocks. A block has one possible slot, so that a look-up is one
// atomic load, without a lock. Blocks in it are never changed.
type blockCache struct {
	slots []atomic.Pointer[cachedBlock]
}

type cachedBlock struct {
	num  uint64
	data []byte
}

func (c *blockCache) init(blockSize int64) {
	c.slots = make([]atomic.Pointer[cachedBlock], cacheSize/blockSize)
}

// slot spreads neighbours and multiples of the group size over the slots.
func (c *blockCache) slot(n uint64) *atomic.Pointer[cachedBlock] {
	h := n * 0x9e3779b97f4a7c15
	return &c.slots[(h>>32)%uint64(len(c.slots))]
}

// block returns the bytes of a metadata block. They must not be changed.
func (f *FS) block(n uint64) ([]byte, error) {
	if n == 0 || n >= f.sb.Blocks {
		return nil, corrupt("block %d is not one of the %d blocks", n, f.sb.Blocks)
	}
	slot := f.cache.slot(n)
	if c := slot.Load(); c != nil && c.num == n {
		return c.data, nil
	}
	data := make([]byte, f.sb.BlockSize)
	if err := readFull(f.r, data, int64(n)*f.sb.BlockSize); err != nil {
		return nil, fmt.Errorf("cannot read block %d of the ext image: %w", n, err)
	}
	slot.Store(&cachedBlock{num: n, data: data})
	return data, nil
}

// Limits of the cache of names.
const (
	maxCachedDirSize = 2 << 20 // bytes of a directory worth an index
	maxCachedNames   = 1 << 16 // names of all indexes
)

// nameCache keeps an index of the larger directories that were looked into, so
// that looking up all names of a directory one by one is not quadratic.
type nameCache struct {
	mu    sync.Mutex
	dirs  map[uint32]map[string]uint32
	names int
}

func (c *nameCache) load(dir uint32) map[string]uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dirs[dir]
}

// store adds an index and drops all others when there are too many names.
func (c *nameCache) store(dir uint32, index map[string]uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names+len(index) > maxCachedNames || c.dirs == nil {
		c.dirs, c.names = map[uint32]map[string]uint32{}, 0
	}
	if _, ok := c.dirs[dir]; !ok && len(index) <= maxCachedNames {
		c.dirs[dir] = index
		c.names += len(index)
	}
}

// pageCache remembers where readers of directories stopped: a place of its own
// for each is not wanted, as forgetting one costs time only.
type pageCache struct {
	mu    sync.Mutex
	pages [64]page
}

// page is the place of entry number index of a directory, in bytes.
type page struct {
	dir   uint32
	index int
	at    int64
}

func (c *pageCache) slot(dir uint32, index int) *page {
	h := (uint64(dir)<<32 | uint64(index)) * 0x9e3779b97f4a7c15
	return &c.pages[(h>>32)%uint64(len(c.pages))]
}

// load returns where entry number index of a directory lies, or 0.
func (c *pageCache) load(dir uint32, index int) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.slot(dir, index); p.dir == dir && p.index == index {
		return p.at
	}
	return 0
}

func (c *pageCache) store(dir uint32, index int, at int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*c.slot(dir, index) = page{dir, index, at}
}
