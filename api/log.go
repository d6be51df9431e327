package api

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// LogHeader is the header by which a server says that what it answers is proven
// by its log; the value is the log's key.
const LogHeader = "X-Transparency-Log"

// LogEntry is a line of the transparency log: from then on a name means a
// digest. Its JSON is what the log's hashes are of.
type LogEntry struct {
	Kind   string    `json:"kind"` // key or tag
	Name   string    `json:"name"` // a fingerprint; or a reference with its tag and architecture
	Digest string    `json:"digest"`
	Time   time.Time `json:"time"`
}

// LogProof proves that a line is in the log.
type LogProof struct {
	Key         string   `json:"key"`        // the log's, as a verifier of signed notes
	Checkpoint  string   `json:"checkpoint"` // the signed note
	Index       int64    `json:"index"`
	Entry       []byte   `json:"entry"`
	Salt        []byte   `json:"salt,omitempty"`        // if the line is blind
	Hashes      [][]byte `json:"hashes"`                // from the line to the checkpoint
	Consistency [][]byte `json:"consistency,omitempty"` // from an older size to the checkpoint
}

// LogConsistency proves that the log of size To goes on from that of size From.
type LogConsistency struct {
	From   int64    `json:"from"`
	To     int64    `json:"to"`
	Hashes [][]byte `json:"hashes"`
}

// TagName is what the log calls a tag of a container, for an architecture; that
// of an OCI image has none.
func TagName(path, tag, arch string) string {
	if arch == "" {
		return path + ":" + tag
	}
	return path + ":" + tag + " " + arch
}

// SaltSize is that of the secret of a blind line, in bytes.
const SaltSize = 32

// Blind hides a name or digest of a line that some may not read. Who has the salt
// can check what it is of; nobody can find two texts with the same.
func Blind(salt []byte, text string) string {
	sum := sha256.Sum256(append(salt[:len(salt):len(salt)], text...))
	return "blind:" + hex.EncodeToString(sum[:])
}
