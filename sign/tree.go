package sign

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"singularity/sif"
	"singularity/verity"
)

// The objects of a hash tree: the tree itself, and the manifest with its root.
// Those of further partitions have the partition's id at the end.
const (
	treeName     = "verity.tree"
	manifestName = "verity.json"

	maxManifestSize = 4096
)

// Tree is the hash tree of a partition. Salt and Root are those of the manifest:
// they are worth what the signature over its group is worth.
type Tree struct {
	Partition, Object, Manifest sif.Object
	Salt                        []byte
	Root                        verity.Digest
}

// Reader returns a reader of the partition that checks all it reads.
func (t *Tree) Reader(f *sif.File) (*verity.Reader, error) {
	return verity.NewReader(f.Reader(t.Partition), t.Partition.Size, f.Reader(t.Object), t.Object.Size, t.Salt, t.Root)
}

// treeable tells whether sign makes a tree for o: it holds a file system that is
// only ever read.
func treeable(o sif.Object) bool {
	p, ok := o.Partition()
	return ok && (p.FS == sif.FSSquashfs || p.FS == sif.FSEncryptedSquashfs || p.FS == sif.FSGocryptfsSquashfs) && o.Size > 0
}

// Trees returns the hash trees of f. An image whose manifest cannot be read has
// none for that partition; the warnings say why.
func Trees(f *sif.File) (list []Tree, warnings []string) {
	for _, t := range groupTasks(f) {
		for _, o := range t.objects {
			if !treeable(o) {
				continue
			}
			tree, err := t.tree(f, o)
			switch {
			case err != nil:
				warnings = append(warnings, fmt.Sprintf("the hash tree of partition %d is not used: %v", o.ID, err))
			case tree != nil:
				list = append(list, *tree)
			}
		}
	}
	return list, warnings
}

// named returns the object with that name, or that name and the id of partition,
// that is linked to it.
func (t *task) named(typ sif.DataType, name string, partition uint32) (sif.Object, bool) {
	i := slices.IndexFunc(t.members, func(o sif.Object) bool {
		return o.Type == typ && o.Link == partition && !o.LinkIsGroup && (o.Name == name || o.Name == name+"."+strconv.Itoa(int(partition)))
	})
	if i < 0 {
		return sif.Object{}, false
	}
	return t.members[i], true
}

// tree returns the tree of partition, nil if it has none.
func (t *task) tree(f *sif.File, partition sif.Object) (*Tree, error) {
	manifest, ok := t.named(sif.DataJSON, manifestName, partition.ID)
	if !ok {
		return nil, nil
	}
	if manifest.Size > maxManifestSize {
		return nil, fmt.Errorf("its manifest has %d bytes, the limit is %d", manifest.Size, maxManifestSize)
	}
	text, err := f.ReadAll(manifest)
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(text)
	if err != nil {
		return nil, err
	}
	object, ok := f.Object(m.tree.relativeID + t.base)
	if !ok || object.Type != sif.DataGeneric || object.Group != t.group || object.Link != partition.ID || object.LinkIsGroup {
		return nil, errors.New("its manifest names an object that is no hash tree of the partition")
	}
	size, err := verity.TreeSize(partition.Size)
	if err != nil {
		return nil, err
	}
	if want := newManifest(t.base, partition, object, m.salt, m.root); want.data != m.data || want.tree != m.tree || object.Size != size || object.Off%verity.BlockSize != 0 {
		return nil, errors.New("its manifest does not fit the objects")
	}
	return &Tree{Partition: partition, Object: object, Manifest: manifest, Salt: m.salt, Root: m.root}, nil
}

// manifest is the text of a manifest object.
type manifest struct {
	data extent // size is that of the partition
	tree extent // size is that of the levels, behind the superblock
	salt []byte
	root verity.Digest
}

// extent is a part of an object. Ids count from the smallest one of the group.
type extent struct {
	relativeID           uint32
	size, blocks, offset int64
}

func newManifest(base uint32, partition, tree sif.Object, salt []byte, root verity.Digest) manifest {
	return manifest{
		data: extent{relativeID: partition.ID - base, size: partition.Size, blocks: (partition.Size-1)/verity.BlockSize + 1},
		tree: extent{relativeID: tree.ID - base, size: tree.Size - verity.BlockSize, offset: verity.BlockSize},
		salt: salt, root: root,
	}
}

// encode returns the one form in which manifests are written.
func (m *manifest) encode() []byte {
	return fmt.Appendf(nil, `{"version":1,"kind":"dm-verity","algorithm":"sha256","dataBlockSize":%d,"hashBlockSize":%d,`+
		`"data":{"relativeId":%d,"size":%d,"blocks":%d},"tree":{"relativeId":%d,"offset":%d,"size":%d},"salt":"%x","rootDigest":"sha256:%x"}`,
		verity.BlockSize, verity.BlockSize, m.data.relativeID, m.data.size, m.data.blocks, m.tree.relativeID, m.tree.offset, m.tree.size, m.salt, m.root)
}

// decodeManifest reads a manifest.
func decodeManifest(text []byte) (*manifest, error) {
	var m manifest
	var version, dataBlock, hashBlock int64
	var kind, algorithm, salt, root string
	d := decoder{json.NewDecoder(bytes.NewReader(text))}
	err := d.object(map[string]func() error{
		"version":       d.into(&version),
		"kind":          d.into(&kind),
		"algorithm":     d.into(&algorithm),
		"dataBlockSize": d.into(&dataBlock),
		"hashBlockSize": d.into(&hashBlock),
		"data": func() error {
			return d.object(map[string]func() error{"relativeId": d.into(&m.data.relativeID), "size": d.into(&m.data.size), "blocks": d.into(&m.data.blocks)})
		},
		"tree": func() error {
			return d.object(map[string]func() error{"relativeId": d.into(&m.tree.relativeID), "size": d.into(&m.tree.size), "offset": d.into(&m.tree.offset)})
		},
		"salt":       d.into(&salt),
		"rootDigest": d.into(&root),
	})
	if err == nil {
		if _, err2 := d.Token(); err2 != io.EOF {
			err = errors.New("text after it")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("its manifest is not valid: %w", err)
	}
	if version != 1 || kind != "dm-verity" || algorithm != "sha256" || dataBlock != verity.BlockSize || hashBlock != verity.BlockSize {
		return nil, fmt.Errorf("version %d, kind %q, algorithm %q, blocks of %d and %d bytes are not known", version, kind, algorithm, dataBlock, hashBlock)
	}
	sum, err := parseDigest(root)
	if err != nil || sum.hash != crypto.SHA256 {
		return nil, fmt.Errorf("its root digest %q is not valid", root)
	}
	copy(m.root[:], sum.sum)
	if m.salt, err = hex.DecodeString(salt); err != nil || len(m.salt) > verity.MaxSalt || hex.EncodeToString(m.salt) != salt {
		return nil, fmt.Errorf("its salt %q is not valid", salt)
	}
	return &m, nil
}

// into reads a value that must be there and of the kind of *p.
func (d decoder) into(p any) func() error {
	return func() error {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		if string(raw) == "null" {
			return errors.New("found null")
		}
		return json.Unmarshal(raw, p)
	}
}
