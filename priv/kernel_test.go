package priv

import (
	"syscall"
	"testing"

	"singularity/conf"
)

// TestFits (SC-059): what a partition is called must be what the image may hold,
// and an image that is no SIF is that file system as a whole.
func TestFits(t *testing.T) {
	const size = 1 << 20
	for _, c := range []struct {
		fs        FS
		off, size uint64
		format    string
		want      bool
	}{
		{SquashfsFS, 4096, 8192, conf.FormatSIF, true},
		{SquashfsFS, 0, size, conf.FormatSquashfs, true},
		{SquashfsFS, 0, size, conf.FormatExtfs, false},
		{SquashfsFS, 4096, 8192, conf.FormatEncrypted, false},
		{SquashfsFS, 0, size, conf.FormatDir, false},
		{Ext3FS, 4096, 8192, conf.FormatSIF, true},
		{Ext3FS, 0, size, conf.FormatExtfs, true},
		{Ext3FS, 4096, size - 4096, conf.FormatExtfs, false},
		{Ext3FS, 0, size - 4096, conf.FormatExtfs, false},
		{Ext3FS, 0, size, conf.FormatSquashfs, false},
		{Ext3FS, 4096, 8192, conf.FormatEncrypted, false},
		{CryptFS, 4096, 8192, conf.FormatEncrypted, true},
		{CryptFS, 4096, 8192, conf.FormatSIF, false}, // would pass by allow container encrypted
		{CryptFS, 0, size, conf.FormatSquashfs, false},
		{0, 0, size, conf.FormatSIF, false},
		{99, 0, size, conf.FormatSIF, false},
	} {
		file := &syscall.Stat_t{Mode: syscall.S_IFREG, Nlink: 1, Size: size}
		if got := (&Kernel{FS: c.fs, Off: c.off, Size: c.size}).fits(c.format, file); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
