package main

import (
	"errors"
	"io"
	"os"

	"singularity/linux/secret"
	"singularity/luks"
	"singularity/priv"
)

// readKey reads the volume key that comes with an encrypted image, nil if there is
// none.
func readKey(args []string) ([]byte, error) {
	if len(args) != 4 || args[3] != "key" || args[0] != "" && args[0] != "full" {
		return nil, nil
	}
	key, err := secret.Alloc(priv.KeySize)
	if err == nil {
		_, err = io.ReadFull(os.Stdin, key)
	}
	return key, err
}

// unlock returns a function that says where the cipher text lies in a LUKS2
// partition, if key is the one whose digest is in its header.
func unlock(key []byte) func(io.ReaderAt, int64) (*priv.Crypt, error) {
	return func(r io.ReaderAt, size int64) (*priv.Crypt, error) {
		c, err := luks.Open(r, size)
		if err != nil {
			return nil, err
		}
		if !c.IsKey(key) {
			return nil, errors.New("the key is not the one of the image's header")
		}
		return &priv.Crypt{Off: uint64(c.DataOff), Size: uint64(c.DataSize), Sector: uint64(c.SectorSize), Key: uint64(c.KeySize())}, nil
	}
}
