package host

import "golang.org/x/sys/unix"

// TempDir chooses where large temporary files go: the first of asked that is
// not empty, whatever it is; else /tmp, or /var/tmp where that one is on disk and
// /tmp is in memory, which large files would fill.
func TempDir(asked ...string) string {
	for _, dir := range asked {
		if dir != "" {
			return dir
		}
	}
	if inMemory("/tmp") && !inMemory("/var/tmp") && unix.Access("/var/tmp", unix.W_OK|unix.X_OK) == nil {
		return "/var/tmp"
	}
	return "/tmp"
}

func inMemory(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) != nil || st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC
}
