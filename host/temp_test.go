package host

import "testing"

func TestTempDir(t *testing.T) {
	if got := TempDir("", "/a", "/b"); got != "/a" {
		t.Errorf("got %q, want the first directory that was asked for", got)
	}
	want := "/tmp"
	if inMemory("/tmp") && !inMemory("/var/tmp") {
		want = "/var/tmp"
	}
	if got := TempDir("", ""); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !inMemory("/dev/shm") {
		t.Skip("/dev/shm is not in memory here")
	}
	if inMemory("/proc") {
		t.Error("procfs was taken for a file system that files fill")
	}
}
