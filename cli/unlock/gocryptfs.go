package unlock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"singularity/gocryptfs"
	"singularity/image"
	"singularity/linux/secret"
	"singularity/squashfs"
)

// errNoGocryptfs says that a partition is not what the other fork makes.
var errNoGocryptfs = errors.New("it is no squashfs with one file that gocryptfs encrypted")

const (
	// innerPrefix begins the name of the encrypted file.
	innerPrefix = "squashfs-"
	// maxOuter is how many files may be beside each other there.
	maxOuter = 16
)

// openGocryptfs opens a partition in which a squashfs holds the configuration of
// gocryptfs and an encrypted squashfs. What a tree of the image checks is the outer
// one.
func (k Source) openGocryptfs(im *image.Image, r *io.SectionReader) (*io.SectionReader, []byte, error) {
	outer, err := openOuter(r)
	if err != nil {
		return nil, nil, err
	}
	text, err := outer.ReadFile("/"+gocryptfs.ConfigName, gocryptfs.MaxConfigSize)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errNoGocryptfs, err)
	}
	c, err := gocryptfs.ParseConfig(text)
	if err != nil {
		return nil, nil, err
	}
	key, err := k.key(im)
	if err != nil {
		return nil, nil, err
	}
	defer clear(key)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	limits := Limits()
	keys, err := c.Unlock(ctx, key, gocryptfs.Limits{Memory: limits.Memory, Rule: limits.Rule, Keys: secret.Memory{}})
	if err != nil {
		return nil, nil, err
	}
	plain, exported, err := openKeys(outer, c, keys)
	if err != nil {
		keys.Close()
	}
	return plain, exported, err
}

func openKeys(outer *squashfs.Reader, c *gocryptfs.Config, keys *gocryptfs.Keys) (*io.SectionReader, []byte, error) {
	name, err := innerName(outer, c, keys)
	if err != nil {
		return nil, nil, err
	}
	plain, err := openInner(outer, keys, name)
	if err != nil {
		return nil, nil, err
	}
	exported, err := secret.Alloc(gocryptfs.KeySize + len(name))
	if err != nil {
		return nil, nil, err
	}
	keys.Export(exported)
	copy(exported[gocryptfs.KeySize:], name)
	return plain, exported, nil
}

func openOuter(r *io.SectionReader) (*squashfs.Reader, error) {
	outer, err := squashfs.Open(r, r.Size(), squashfs.ReaderOptions{})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoGocryptfs, err)
	}
	return outer, nil
}

// innerName finds the encrypted squashfs, and returns the name that it is stored
// by.
func innerName(outer *squashfs.Reader, c *gocryptfs.Config, keys *gocryptfs.Keys) (string, error) {
	list, err := outer.ReadDir(outer.Root())
	if err != nil {
		return "", err
	}
	if len(list) > maxOuter {
		return "", errNoGocryptfs
	}
	var iv [gocryptfs.IVSize]byte
	if b, err := outer.ReadFile("/"+gocryptfs.IVName, gocryptfs.IVSize); err == nil && len(b) == len(iv) {
		copy(iv[:], b)
	}
	found := ""
	for i := range list {
		stored := list[i].Name
		if gocryptfs.Own(stored) {
			continue
		}
		name := stored
		if !c.PlaintextNames {
			if long := gocryptfs.LongName(stored); long != "" {
				b, err := outer.ReadFile("/"+long, gocryptfs.MaxName)
				if err != nil {
					return "", err
				}
				name = string(b)
			}
			if name, err = keys.Name(name, iv); err != nil {
				return "", err
			}
		}
		if !strings.HasPrefix(name, innerPrefix) || found != "" {
			return "", errNoGocryptfs
		}
		found = stored
	}
	if found == "" {
		return "", errNoGocryptfs
	}
	return found, nil
}

func openInner(outer *squashfs.Reader, keys *gocryptfs.Keys, name string) (*io.SectionReader, error) {
	in, err := outer.Walk("/"+name, false)
	if err != nil {
		return nil, err
	}
	if !in.IsRegular() {
		return nil, errNoGocryptfs
	}
	stored, err := outer.File(in.Ref)
	if err != nil {
		return nil, err
	}
	f, err := keys.File(stored, in.Size)
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(f, 0, f.Size()), nil
}

// gocryptfsAgain opens the partition in another process, with what openGocryptfs
// gave.
func gocryptfsAgain(r *io.SectionReader, exported []byte) (*io.SectionReader, error) {
	if len(exported) <= gocryptfs.KeySize {
		return nil, errNoGocryptfs
	}
	outer, err := openOuter(r)
	if err != nil {
		return nil, err
	}
	keys, err := gocryptfs.NewKeys(exported[:gocryptfs.KeySize], false, secret.Memory{})
	if err != nil {
		return nil, err
	}
	plain, err := openInner(outer, keys, string(exported[gocryptfs.KeySize:]))
	if err != nil {
		keys.Close()
	}
	return plain, err
}
