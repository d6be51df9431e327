package zstd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

var packedCache = map[string][]byte{}

// compressAt compresses p at one of the other package's levels, or with the
// zstd command if level is "cN".
func compressAt(tb testing.TB, level string, p []byte) []byte {
	key := level + string(p)
	if z, ok := packedCache[key]; ok {
		return z
	}
	if n, ok := strings.CutPrefix(level, "c"); ok {
		// Many files in one run: starting the command costs more than its work.
		packedCache[key] = command(tb, n, p)
		return packedCache[key]
	}
	_, l := zstd.EncoderLevelFromString(level)
	packedCache[key] = encoder(tb, zstd.WithEncoderLevel(l), zstd.WithEncoderCRC(false)).EncodeAll(p, nil)
	return packedCache[key]
}

func command(tb testing.TB, level string, p []byte) []byte {
	name := filepath.Join(tb.TempDir(), "block")
	if err := os.WriteFile(name, p, 0o600); err != nil {
		tb.Fatal(err)
	}
	z, err := exec.Command("zstd", "-"+level, "--no-check", "-q", "-c", name).Output()
	if err != nil {
		tb.Skip("needs zstd")
	}
	return z
}
