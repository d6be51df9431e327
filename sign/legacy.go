package sign

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"

	"singularity/sif"
)

// legacyHashes are the digests of old signatures, by what the descriptor says.
var legacyHashes = map[sif.HashType]crypto.Hash{
	sif.HashSHA256: crypto.SHA256,
	sif.HashSHA384: crypto.SHA384,
	sif.HashSHA512: crypto.SHA512,
}

// checkLegacy reads the text of an old signature: a line "SIFHASH:" and a line
// with the digest of the object's data, or of the data of all objects of the
// group, one after the other.
func (c *candidate) checkLegacy(s *signatureObject, text []byte) error {
	meta, _ := s.Signature()
	alg, ok := legacyHashes[meta.Hash]
	if !ok {
		return fmt.Errorf("digest %v is not accepted", meta.Hash)
	}
	line, ok := bytes.CutPrefix(text, []byte(legacyStart+"\n"))
	sum, err := hex.DecodeString(string(bytes.TrimSpace(line)))
	if !ok || err != nil || len(sum) != alg.Size() {
		return errors.New("legacy statement not valid")
	}
	objects := c.task.objects
	if c.task.object == 0 {
		objects = c.task.members // in the order of the table
	}
	c.pending = []pendingDigest{{objects: objects, want: digest{hash: alg, sum: sum}}}
	return nil
}
