package squashfs

import "sync"

// genCache keeps decoded metadata in two generations: what is used moves to the
// young one, and when that is full it becomes the old one, whose content is
// dropped. It holds at most twice its limit, needs no list, and is the same as
// least-recently-used for our purpose. The zero value with a limit is ready.
type genCache[K comparable, V any] struct {
	limit int64 // cost of one generation

	mu         sync.RWMutex
	young, old map[K]costed[V]
	cost       int64 // of the young generation
}

type costed[V any] struct {
	value V
	cost  int64
}

func (c *genCache[K, V]) get(key K) (V, bool) {
	c.mu.RLock()
	e, ok := c.young[key]
	if ok {
		c.mu.RUnlock()
		return e.value, true
	}
	e, ok = c.old[key]
	c.mu.RUnlock()
	if ok {
		c.put(key, e.value, e.cost)
	}
	return e.value, ok
}

func (c *genCache[K, V]) put(key K, value V, cost int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.young == nil || c.cost+cost > c.limit {
		c.old, c.young, c.cost = c.young, map[K]costed[V]{}, 0
	}
	if _, ok := c.young[key]; !ok {
		c.cost += cost
	}
	c.young[key] = costed[V]{value, cost}
}

// cachedBlock is a decompressed block, in the list of its cache or held by
// readers or both.
type cachedBlock struct {
	key        BlockID
	slot       []byte        // the memory, BlockSize bytes
	data       []byte        // what is in it; set before done is closed
	err        error         // the same
	done       chan struct{} // closed when data or err is set
	ready      bool          // done is closed; guarded by blockCache.mu
	listed     bool          // still in the cache; guarded by blockCache.mu
	heap       bool          // slot is not from the arena
	refs       int           // holders; guarded by blockCache.mu
	prev, next *cachedBlock
}

// blockCache keeps decompressed data blocks in slots of one size, the least
// recently used is replaced first. A block that several goroutines want is
// decompressed once. Slots never move and are not reused while held, so their
// bytes can be handed to the kernel without a copy.
type blockCache struct {
	mu      sync.Mutex
	entries map[BlockID]*cachedBlock
	list    cachedBlock // ring; next is the most recently used
	arena   arena
	held    int // slots of the arena that are held
	closed  bool
}

func (c *blockCache) init(blockSize int, size int64) {
	c.entries = map[BlockID]*cachedBlock{}
	c.list.prev, c.list.next = &c.list, &c.list
	c.arena.slotSize, c.arena.slots = blockSize, max(8, int(size/int64(blockSize)))
}

// acquire returns the block with the given key, held. If it must be loaded
// first, load is called with its memory and returns how much of it is data. If
// it is not there and wait is false, acquire returns nil and no error.
func (c *blockCache) acquire(key BlockID, wait bool, load func(BlockID, []byte) (int, error)) (*cachedBlock, error) {
	c.mu.Lock()
	if e := c.entries[key]; e != nil {
		if !e.ready && !wait {
			c.mu.Unlock()
			return nil, nil
		}
		c.hold(e)
		e.unlink()
		c.list.insert(e)
		ready := e.ready
		c.mu.Unlock()
		if !ready {
			<-e.done
			if e.err != nil {
				c.release(e)
				return nil, e.err
			}
		}
		return e, nil
	}
	if !wait {
		c.mu.Unlock()
		return nil, nil
	}
	if c.closed {
		c.mu.Unlock()
		return nil, errClosed
	}
	e := &cachedBlock{key: key, done: make(chan struct{}), listed: true}
	if e.slot = c.slot(); e.slot == nil {
		e.slot, e.heap = make([]byte, c.arena.slotSize), true
	}
	c.hold(e)
	c.entries[key] = e
	c.list.insert(e)
	c.mu.Unlock()

	n, err := load(key, e.slot)

	c.mu.Lock()
	e.data, e.err, e.ready = e.slot[:n], err, true
	if err != nil {
		c.drop(e)
	}
	c.mu.Unlock()
	close(e.done)
	if err != nil {
		c.release(e)
		return nil, err
	}
	return e, nil
}

// slot finds memory for a block: unused, or that of the least recently used
// block that nobody holds. It returns nil if everything is held.
func (c *blockCache) slot() []byte {
	if s := c.arena.take(); s != nil {
		return s
	}
	for e := c.list.prev; e != &c.list; e = e.prev {
		if e.refs == 0 && !e.heap {
			c.drop(e)
			return e.slot
		}
	}
	return nil
}

func (c *blockCache) hold(e *cachedBlock) {
	if e.refs++; e.refs == 1 && !e.heap {
		c.held++
	}
}

// drop takes e out of the cache; holders keep it.
func (c *blockCache) drop(e *cachedBlock) {
	if e.listed {
		delete(c.entries, e.key)
		e.unlink()
		e.listed = false
	}
}

func (c *blockCache) release(e *cachedBlock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.refs--; e.refs > 0 {
		return
	}
	if e.heap {
		// Memory beyond the arena is for bursts only.
		c.drop(e)
		return
	}
	c.held--
	if !e.listed {
		c.arena.give(e.slot)
	}
	if c.closed && c.held == 0 {
		c.arena.free()
	}
}

func (c *blockCache) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	for c.list.next != &c.list {
		c.drop(c.list.next)
	}
	if c.held > 0 {
		return nil // the last release frees
	}
	return c.arena.free()
}

func (c *cachedBlock) unlink() {
	c.prev.next, c.next.prev = c.next, c.prev
}

func (c *cachedBlock) insert(e *cachedBlock) {
	e.prev, e.next = c, c.next
	c.next.prev = e
	c.next = e
}
