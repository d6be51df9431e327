package keeper

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"singularity/conf"
)

// TestKeep: what was attached is undone when the start ends, also one that does
// not listen.
func TestKeep(t *testing.T) {
	r, w := io.Pipe()
	var said strings.Builder
	undone, done := false, make(chan int)
	go func() {
		done <- Keep(r, &said, func() error { undone = true; return errors.New("left") }, nil)
	}()
	w.Write([]byte("whatever a start says"))
	w.Close()
	if code := <-done; code != 255 || !undone || said.String() != "ready \"\"\nwarning \"left\"\n" {
		t.Errorf("status %d, undone %v, %q", code, undone, said.String())
	}
	closed, _, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	undone = false
	if code := Keep(r, closed, func() error { undone = true; return nil }, nil); code != 0 || !undone {
		t.Errorf("nobody listens: status %d, undone %v", code, undone)
	}
	said.Reset()
	if code := Keep(r, &said, nil, errors.New("a\nb")); code != 255 || said.String() != "error \"a\\nb\"\n" {
		t.Errorf("status %d, %q", code, said.String())
	}
}

// TestForUserRefuses: arguments that the helper does not make.
func TestForUserRefuses(t *testing.T) {
	for _, args := range [][]string{nil, {"1000"}, {"1000", "bridge"}, {"x", "bridge", ""}, {"1000", "bridge", "", "ptp"}} {
		if undo, err := forUser(args, io.Discard); err == nil || undo != nil {
			t.Errorf("%q is taken", args)
		}
	}
}

func TestSite(t *testing.T) {
	s := Site(&conf.Config{})
	if s.Lists != conf.Dir()+"/network" || len(s.Plugins) < 3 || s.State != "/run/singularity/network" {
		t.Errorf("%+v", s)
	}
	if s = Site(&conf.Config{Others: conf.Others{CNIConfigurationPath: "/a", CNIPluginPath: "/b"}}); s.Lists != "/a" || len(s.Plugins) != 1 || s.Plugins[0] != "/b" {
		t.Errorf("%+v", s)
	}
}
