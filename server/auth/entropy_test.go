package auth

import (
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestSC120Secrets: of a million secrets no two are alike, and every character of
// every place is equally likely; the shortest that the program asks for anywhere
// has 128 bits.
func TestSC120Secrets(t *testing.T) {
	const n, size = 1_000_000, 22
	var counts [size][128]int
	seen := make(map[string]struct{}, n)
	for range n {
		text := randomText(size)
		seen[text] = struct{}{}
		for i := range size {
			counts[i][text[i]]++
		}
	}
	if len(seen) != n {
		t.Errorf("%d of %d secrets are different", len(seen), n)
	}
	// The distance from what is expected stays below eight standard deviations of
	// the chi-squared distribution: by chance once in many millions.
	const want = float64(n) / float64(len(base62))
	limit := float64(len(base62)-1) + 8*math.Sqrt(2*float64(len(base62)-1))
	for i := range counts {
		sum := 0.0
		for _, c := range base62 {
			d := float64(counts[i][c]) - want
			sum += d * d / want
		}
		if sum > limit {
			t.Errorf("the characters at place %d are not equally likely: chi-squared %.0f, limit %.0f", i, sum, limit)
		}
	}
	if least := shortest(t); float64(least)*math.Log2(62) < 128 {
		t.Errorf("a secret of %d characters has less than 128 bits", least)
	}
}

// shortest reads the sources of the package for the shortest secret asked for.
func shortest(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	call := regexp.MustCompile(`[^c] randomText\((\w+)\)`)
	sizes := map[string]int{"tokenIDSize": tokenIDSize, "tokenRandom": tokenRandom}
	least, calls := math.MaxInt, 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllSubmatch(text, -1) {
			calls++
			size, known := sizes[string(m[1])]
			if !known {
				if size, err = strconv.Atoi(string(m[1])); err != nil {
					t.Errorf("%s: how long is a secret of %s?", name, m[1])
				}
			}
			least = min(least, size)
		}
	}
	if calls < 6 {
		t.Errorf("only %d secrets were found", calls)
	}
	return least
}
