package luks

import (
	"context"
	"errors"
	"runtime"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/pbkdf2"
)

// KDF says how a key is derived from a passphrase, and what that costs.
type KDF struct {
	Type       string // argon2id, argon2i or pbkdf2
	Time       int    // argon2: passes
	Memory     int    // argon2: KiB
	CPUs       int    // argon2: lanes
	Hash       string // pbkdf2: sha256 or sha512
	Iterations int    // pbkdf2
	salt       []byte
}

const (
	minMemory = 32      // KiB, of argon2
	maxMemory = 4 << 20 // KiB
	maxTime   = 64
	maxCPUs   = 4
)

// Cost returns the memory that deriving takes, in bytes.
func (k KDF) Cost() uint64 { return uint64(k.Memory) << 10 }

// DefaultKDF returns what new images use: a cost that slows guessing down and
// fits a small machine or job, not only the one that builds. Where memory is
// limited it takes half of it and more passes.
func DefaultKDF(l Limits) (KDF, error) {
	const memory, least = 256 << 10, 32 << 10
	k := KDF{Type: "argon2id", Time: 4, Memory: memory, CPUs: 2}
	for l.Memory > 0 && k.Cost() > l.Memory/2 {
		k.Memory /= 2
		k.Time *= 2
	}
	if k.Memory < least {
		return k, &LimitError{Need: 2 * least << 10, Have: l.Memory, Rule: l.rule()}
	}
	return k, nil
}

// RandomKDF is for a passphrase that is random and as long as a key: nobody
// guesses it, so that the least cost is enough.
func RandomKDF() KDF { return KDF{Type: "pbkdf2", Hash: "sha256", Iterations: minIterations} }

func acceptKDF(f fields) KDF {
	kind, _ := f.object("kdf").o["type"].(string)
	if kind == "pbkdf2" {
		k := f.object("kdf", "type", "hash", "iterations", "salt")
		return KDF{Type: kind, Hash: k.word("hash", "sha256", "sha512"), Iterations: k.number("iterations", minIterations, maxIterations), salt: k.bytes("salt", 8, 64)}
	}
	k := f.object("kdf", "type", "time", "memory", "cpus", "salt")
	return KDF{Type: k.word("type", "argon2id", "argon2i"), Time: k.number("time", 1, maxTime), Memory: k.number("memory", minMemory, maxMemory),
		CPUs: k.number("cpus", 1, maxCPUs), salt: k.bytes("salt", 8, 64)}
}

func (l Limits) rule() string {
	if l.Rule == "" {
		return "the limit"
	}
	return l.Rule
}

// within says whether l allows k.
func (k KDF) within(l Limits, slot int) error {
	if l.Memory > 0 && k.Cost() > l.Memory {
		return &LimitError{Slot: slot, Need: k.Cost(), Have: l.Memory, Rule: l.rule()}
	}
	return nil
}

// derive returns n bytes. Deriving cannot be interrupted: when ctx ends it
// goes on without anybody who waits, and its result is wiped.
func (k KDF) derive(ctx context.Context, passphrase []byte, n int) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	secret := append([]byte(nil), passphrase...) // the caller may wipe his when ctx ends
	done := make(chan []byte)
	go func() {
		defer clear(secret)
		key := k.run(secret, n)
		select {
		case done <- key:
		case <-ctx.Done():
			clear(key)
		}
	}()
	select {
	case key := <-done:
		if k.Memory > 0 {
			runtime.GC() // argon2's memory, which the next slot may need
		}
		return key, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (k KDF) run(passphrase []byte, n int) []byte {
	switch k.Type {
	case "argon2id":
		return argon2.IDKey(passphrase, k.salt, uint32(k.Time), uint32(k.Memory), uint8(k.CPUs), uint32(n))
	case "argon2i":
		return argon2.Key(passphrase, k.salt, uint32(k.Time), uint32(k.Memory), uint8(k.CPUs), uint32(n))
	}
	return pbkdf2.Key(passphrase, k.salt, k.Iterations, n, hashNamed(k.Hash))
}

// check says what is wrong with a KDF that a caller asks for.
func (k KDF) check() error {
	switch {
	case k.Type == "pbkdf2" && hashNamed(k.Hash) != nil && k.Iterations >= minIterations && k.Iterations <= maxIterations:
		return nil
	case (k.Type == "argon2id" || k.Type == "argon2i") && k.Time >= 1 && k.Time <= maxTime && k.Memory >= minMemory &&
		k.Memory <= maxMemory && k.CPUs >= 1 && k.CPUs <= maxCPUs:
		return nil
	}
	return errors.New("the costs of the key derivation are outside what an image may ask for")
}
