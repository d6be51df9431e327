package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"singularity/client/translog"
)

// logMemory keeps the last checkpoint of each server's transparency log in a
// directory of the user's: a file for each server.
type logMemory struct{ dir string }

// file is the name of a server's file; a port has a colon, which some file
// systems do not take.
func (m logMemory) file(server string) string {
	return strings.NewReplacer("://", "_", ":", "_", "/", "_", "[", "", "]", "").Replace(server) + ".json"
}

// historyHint is what to do about a log that is not the one of last time.
const historyHint = "the server may show you what others do not see: ask its administrator whether it was set up anew, and only then remove its file below ~/.singularity/logs"

const maxLogState = 4096

// Load reads what is known of a server's log. A file that is damaged is an error:
// an empty one would let any history pass.
func (m logMemory) Load(server string) (s translog.State, err error) {
	path := filepath.Join(m.dir, m.file(server))
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("cannot read what is known of the log of %q: %w", server, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxLogState))
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err == nil && (s.Key == "" || s.Size < 1) {
		err = errors.New("it is damaged")
	}
	if err != nil {
		return s, fmt.Errorf("cannot read what is known of the log of %q: %s: %w", server, path, err)
	}
	return s, nil
}

// Save replaces the file of a server at once.
func (m logMemory) Save(server string, s translog.State) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	return writeFileWhole(filepath.Join(m.dir, m.file(server)), text, 0o600)
}
