package translog

import (
	"fmt"
	"sync"
	"testing"
)

// TestShared: processes that write at once make one log, and each shows what the
// other has shown.
func TestShared(t *testing.T) {
	r := newStore(t)
	logs := []*Log{open(t, r), open(t, r), open(t, r)}
	const each, lines = 4, 12
	var mu sync.Mutex
	at := map[int64]string{}
	var group sync.WaitGroup
	for n, l := range logs {
		l.Share()
		for w := range each {
			group.Go(func() {
				for i := range lines {
					name := fmt.Sprintf("%d-%d-%d", n, w, i)
					index, err := l.Change(t.Context(), "key", name, "sha256:"+name)
					if err != nil {
						t.Error(err)
						return
					}
					// Whoever asks another process has it proven there.
					if _, err := logs[(n+1)%len(logs)].Prove(t.Context(), index, index+1); err != nil {
						t.Error(err)
					}
					mu.Lock()
					if other, ok := at[index]; ok {
						t.Errorf("%s and %s are both line %d", other, name, index)
					}
					at[index] = name
					mu.Unlock()
				}
			})
		}
	}
	group.Wait()
	tree, _, err := logs[0].newest(t.Context())
	if want := int64(len(logs) * each * lines); err != nil || tree.N != want {
		t.Errorf("the log has %d lines, want %d, %v", tree.N, want, err)
	}
	// A process that starts now has the same tree.
	again, _ := open(t, r).head()
	if again != tree {
		t.Errorf("another tree after a start: %v, %v", again, tree)
	}
}
