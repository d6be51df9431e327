// Package translog checks what a server's transparency log proves.
//
// In go a proof as a server sent it and what the client remembers of that log,
// out comes what to remember from now on. The server is not trusted: a proof that
// does not hold, a line about something else, and a log that is not the one of
// last time with lines added are errors. The first key and checkpoint of a log
// are taken as they come; each later one must fit.
//
// The package does not connect and keeps nothing.
//
// Specs: RFC 6962 for proofs, c2sp.org/tlog-checkpoint and signed-note.
package translog

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"singularity/api"
)

// ErrProof is wrapped by every error of a proof that does not hold.
var ErrProof = errors.New("the proof of the server's transparency log does not hold")

// ErrHistory is wrapped if the log is not the one of last time: it was replaced,
// or different clients are shown different ones.
var ErrHistory = errors.New("the server's transparency log is not the one of last time")

// State is what a client remembers of a log. The zero State is that of a client
// who never saw it.
type State struct {
	Key  string `json:"key"`
	Size int64  `json:"size"`
	Root []byte `json:"root"`
}

// Memory keeps what is known of the logs of servers. A server is named by scheme
// and host. Load returns a zero State for one that is new.
type Memory interface {
	Load(server string) (State, error)
	Save(server string, s State) error
}

// Offered checks that a server which had a log has it still: offered is the key
// that it names in its answer, or empty. It tells whether to check a proof.
func Offered(server, offered string, last State) (bool, error) {
	if offered == "" && last.Key != "" {
		return false, fmt.Errorf("%w: %q offers none any more", ErrHistory, server)
	}
	return offered != "", nil
}

// maxHashes bounds a proof: a tree of 2^62 lines needs no more.
const maxHashes = 64

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProof, fmt.Sprintf(format, args...))
}

// Check checks that the log says that a name means a digest, and returns what to
// remember. A line about a tag may be blind: its container is private.
func Check(p api.LogProof, kind, name, digest string, last State) (State, error) {
	key := p.Key
	if last.Key != "" && last.Key != key {
		return last, fmt.Errorf("%w: its key is another", ErrHistory)
	}
	tree, err := openCheckpoint(p.Checkpoint, key)
	if err != nil {
		return last, err
	}
	proof, err := hashes(p.Hashes)
	if err != nil {
		return last, err
	}
	if p.Index < 0 || p.Index >= tree.N || tlog.CheckRecord(tlog.RecordProof(proof), tree.N, tree.Hash, p.Index, tlog.RecordHash(p.Entry)) != nil {
		return last, bad("the line is not in the tree")
	}
	var e api.LogEntry
	if err := json.Unmarshal(p.Entry, &e); err != nil {
		return last, bad("the line is not readable")
	}
	if kind == "tag" && len(p.Salt) == api.SaltSize {
		name, digest = api.Blind(p.Salt, name), api.Blind(p.Salt, digest)
	}
	if e.Kind != kind || e.Name != name || e.Digest != digest {
		return last, bad("the line says that %s %.100q is %.100q, the server gave %s", e.Kind, e.Name, e.Digest, digest)
	}
	if err := follows(tree, p.Consistency, last); err != nil {
		return last, err
	}
	return State{Key: key, Size: tree.N, Root: tree.Hash[:]}, nil
}

// follows checks that the tree has all that the last one had.
func follows(t tlog.Tree, consistency [][]byte, last State) error {
	if last.Size == 0 {
		return nil
	}
	if len(last.Root) != tlog.HashSize {
		return fmt.Errorf("%w: what is remembered of it is damaged", ErrHistory)
	}
	root := tlog.Hash(last.Root)
	if t.N < last.Size {
		return fmt.Errorf("%w: it has %d lines and had %d", ErrHistory, t.N, last.Size)
	}
	proof, err := hashes(consistency)
	if err != nil {
		return err
	}
	if t.N == last.Size {
		if t.Hash != root {
			return fmt.Errorf("%w: other lines are in the places of those", ErrHistory)
		}
		return nil
	}
	if tlog.CheckTree(tlog.TreeProof(proof), t.N, t.Hash, last.Size, root) != nil {
		return fmt.Errorf("%w: it does not go on from there", ErrHistory)
	}
	return nil
}

// openCheckpoint checks the signature of a checkpoint and reads it.
func openCheckpoint(text, key string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return tlog.Tree{}, bad("its key is not valid")
	}
	n, err := note.Open([]byte(text), note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, bad("its checkpoint is not signed by its key")
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, bad("its checkpoint is of another log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	root, err2 := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || err2 != nil || size < 1 || len(root) != tlog.HashSize {
		return tlog.Tree{}, bad("its checkpoint is not readable")
	}
	return tlog.Tree{N: size, Hash: tlog.Hash(root)}, nil
}

func hashes(list [][]byte) ([]tlog.Hash, error) {
	if len(list) > maxHashes {
		return nil, bad("it has %d hashes", len(list))
	}
	var out []tlog.Hash
	for _, h := range list {
		if len(h) != tlog.HashSize {
			return nil, bad("a hash has %d bytes", len(h))
		}
		out = append(out, tlog.Hash(h))
	}
	return out, nil
}
