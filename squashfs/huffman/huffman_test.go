package huffman

import (
	"slices"
	"testing"
)

// cost is the number of bits of all symbols, the rarest with the longest words.
func cost(counts []uint64, sizes Sizes) (bits, kraft int) {
	i := 0
	for size := MaxBits; size > 0; size-- {
		for range sizes[size] {
			bits += int(counts[i]) * size
			kraft += 1 << (MaxBits - size)
			i++
		}
	}
	return bits, kraft
}

func TestSizes(t *testing.T) {
	fibonacci := []uint64{1, 1}
	for len(fibonacci) < 30 {
		n := len(fibonacci)
		fibonacci = append(fibonacci, fibonacci[n-1]+fibonacci[n-2])
	}
	for _, c := range []struct {
		name   string
		counts []uint64
		limit  int
		want   int // bits; 0: only complete and within the limit
	}{
		{"two", []uint64{1, 9}, 15, 10},
		{"equal", []uint64{5, 5, 5, 5}, 15, 40},
		{"skewed", []uint64{1, 1, 2, 4, 8}, 15, 30},
		{"skewed, short words", []uint64{1, 1, 2, 4, 8}, 3, 32},
		{"deep", fibonacci, 15, 0},
		{"deeper than allowed", fibonacci, 5, 0},
	} {
		var list []uint64
		for i, n := range slices.Sorted(slices.Values(c.counts)) {
			list = append(list, n<<8|uint64(i))
		}
		var b Builder
		sizes := b.Sizes(list, 8, c.limit)
		bits, kraft := cost(slices.Sorted(slices.Values(c.counts)), sizes)
		if c.want != 0 && bits != c.want || kraft != 1<<MaxBits {
			t.Errorf("%s: %d bits, sizes %v, want %d and a complete code", c.name, bits, sizes, c.want)
		}
		for size := c.limit + 1; size <= MaxBits; size++ {
			if sizes[size] > 0 {
				t.Errorf("%s: a word of %d bits", c.name, size)
			}
		}
	}
}
