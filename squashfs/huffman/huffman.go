// Package huffman finds the lengths of the words of a Huffman code. In go the
// counts of symbols, in order; out comes how many words of each length the best
// code has whose words are at most so long. Which symbol gets which word is the
// format's business: deflate and zstd differ there.
package huffman

// MaxBits is the longest word that can be asked for.
const MaxBits = 15

// Sizes holds the number of words by their length in bits.
type Sizes [MaxBits + 1]int

// Builder computes codes, and keeps the memory for the next one.
type Builder struct{ nodes []uint32 }

// Sizes returns how many words of each length, at most limit, the best code for
// the sorted list has: each element holds a count above its lowest shift bits.
// There must be two at least. It builds the Huffman tree in one array: a node
// holds its weight until it has a parent, then its parent, then its depth.
func (b *Builder) Sizes(list []uint64, shift uint, limit int) (sizes Sizes) {
	n := len(list)
	b.nodes = append(b.nodes[:0], make([]uint32, n)...)
	nodes := b.nodes // inner nodes, in the order of their weights
	leaf, node := 0, 0
	lightest := func(made int) (weight uint32) {
		if node >= made || leaf < n && uint32(list[leaf]>>shift) <= nodes[node] {
			weight = uint32(list[leaf] >> shift)
			leaf++
			return weight
		}
		weight = nodes[node]
		nodes[node] = uint32(made) // its parent
		node++
		return weight
	}
	for made := range n - 1 {
		nodes[made] = lightest(made) + lightest(made)
	}
	root := n - 2
	nodes[root] = 0
	for i := root - 1; i >= 0; i-- {
		nodes[i] = nodes[nodes[i]] + 1
	}
	// Each depth has twice the inner nodes of the one above; what is not inner is leaf.
	inner, places := root, 1
	for depth := 0; places > 0; depth++ {
		here := 0
		for inner >= 0 && nodes[inner] == uint32(depth) {
			here++
			inner--
		}
		sizes[min(depth, limit)] += places - here
		places = 2 * here
	}
	sizes.limit(limit)
	return sizes
}

// limit repairs a code whose longer words were cut to limit bits: as long as the
// words are too many, a shorter one is made a bit longer, and takes one of the
// longest beside it.
func (sizes *Sizes) limit(limit int) {
	total := 0
	for s := 1; s <= limit; s++ {
		total += sizes[s] << (limit - s)
	}
	for ; total > 1<<limit; total-- {
		s := limit - 1
		for sizes[s] == 0 {
			s--
		}
		sizes[s]--
		sizes[s+1] += 2
		sizes[limit]--
	}
}
