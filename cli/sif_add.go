package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"singularity/sif"
)

// sifAddOptions are the flags of sif add. Numbers are those of the format.
type sifAddOptions struct {
	dataType                     int
	partType, partFS, partArch   int32
	signHash                     int32
	signEntity, sbomFormat, name string
	group, link                  uint32
	align                        int64
	alignSet                     bool
}

func newSIFAddCommand() *cobra.Command {
	var o sifAddOptions
	c := &cobra.Command{
		Use:   "add [options] <image> <file>",
		Short: "Add a data object to a SIF image",
		Long: "Add the content of a file, or of standard input if that is -, to a SIF image as a new data object. " +
			"The object belongs to no group unless --groupid is given; verify refuses images with such objects.",
		Example: "  $ singularity sif add img recipe.def --datatype 1\n" +
			"  $ singularity sif add img x --datatype 4 --parttype 2 --partfs 1 --partarch 2\n" +
			"  $ singularity sif add img notes.json --datatype 6 --filename notes.json",
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			o.alignSet = c.Flags().Changed("alignment")
			return sifAdd(args[0], args[1], c.InOrStdin(), o)
		},
	}
	f := c.Flags()
	f.IntVar(&o.dataType, "datatype", 0, "what the data is: 1-Deffile, 2-EnvVar, 3-Labels, 4-Partition, 5-Signature, 6-GenericJSON, 7-Generic, 8-CryptoMessage, 9-SBOM, 10-OCI.RootIndex, 11-OCI.Blob (required)")
	f.Int32Var(&o.partType, "parttype", 0, "what a partition is for: 1-System, 2-PrimSys, 3-Data, 4-Overlay")
	f.Int32Var(&o.partFS, "partfs", 0, "file system of a partition: 1-Squash, 2-Ext3, 3-ImmuObj, 4-Raw, 5-EncryptedSquash")
	f.Int32Var(&o.partArch, "partarch", 0, "architecture of a partition: 1-386, 2-amd64, 3-arm, 4-arm64, 5-ppc64, 6-ppc64le, 7-mips, 8-mipsle, 9-mips64, 10-mips64le, 11-s390x, 12-riscv64, 13-loong64")
	f.Int32Var(&o.signHash, "signhash", 0, "hash of a signature: 1-SHA256, 2-SHA384, 3-SHA512, 4-BLAKE2s_256, 5-BLAKE2b_256")
	f.StringVar(&o.signEntity, "signentity", "", "`fingerprint` of the key that made a signature, 40 hex digits")
	f.StringVar(&o.sbomFormat, "sbomformat", "", "`format` of a bill of materials: cyclonedx-json, cyclonedx-xml, github-json, spdx-json, spdx-rdf, spdx-tag-value, spdx-yaml, syft-json")
	f.Uint32Var(&o.group, "groupid", 0, "group of the object (default none)")
	f.Uint32Var(&o.link, "link", 0, "object that this one belongs to; 0xF0000000 plus a number links it to a group (default none)")
	f.Int64Var(&o.align, "alignment", 0, "place the data at a multiple of so many bytes (default 4096 for a partition, else 1)")
	f.StringVar(&o.name, "filename", "", "`name` of the object (default none)")
	return c
}

// sifAdd adds the content of the file called data, or of stdin for "-".
func sifAdd(image, data string, stdin io.Reader, o sifAddOptions) error {
	in, err := o.input()
	if err != nil {
		return exitOne(fmt.Errorf("cannot add object: %w", err))
	}
	if data != "-" {
		f, err := os.Open(data)
		if err != nil {
			return exitOne(fmt.Errorf("cannot add object: %w", err))
		}
		defer f.Close()
		if sameFile(f, image) {
			// It would grow while it is read, without end.
			return exitOne(fmt.Errorf("cannot add %q to itself", image))
		}
		stdin = f
	}
	in.Data = stdin
	if in.Type == sif.DataOCIRootIndex || in.Type == sif.DataOCIBlob {
		spool, digest, err := spoolBlob(stdin)
		if err != nil {
			return exitOne(fmt.Errorf("cannot read %q: %w", data, err))
		}
		defer spool.Close()
		in.Data, in.Extra = spool, digest.Extra()
	}
	return editSIF(image, func(e *sif.Editor) error {
		_, err := e.Add(in)
		return err
	})
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// input turns the flags into what sif.Editor.Add takes, without the data.
func (o sifAddOptions) input() (sif.Input, error) {
	in := sif.Input{Name: o.name, Group: o.group, Link: o.link, Align: o.align}
	if o.dataType < 1 || o.dataType > 11 {
		return in, errors.New("--datatype needs a number from 1 to 11")
	}
	in.Type = sif.DataDefFile - 1 + sif.DataType(o.dataType)
	// Scripts write group numbers with and without the mark that the file has.
	const mark = 0xf0000000
	if in.Group&mark == mark {
		in.Group &^= mark
	}
	if in.Link&mark == mark {
		in.Link, in.LinkIsGroup = in.Link&^mark, true
	}
	if o.alignSet && in.Align == 0 {
		in.Align = 1
	}
	var err error
	in.Extra, err = o.extra(in.Type)
	return in, err
}

// extra is the metadata of an object of type t.
func (o sifAddOptions) extra(t sif.DataType) (b [384]byte, err error) {
	switch t {
	case sif.DataPartition:
		if o.partType == 0 || o.partFS == 0 || o.partArch == 0 {
			return b, errors.New("a partition needs --partfs, --parttype and --partarch")
		}
		p := sif.Partition{FS: sif.FSType(o.partFS), Type: sif.PartType(o.partType), Arch: sif.Arch(int(o.partArch))}
		return p.Extra(), nil
	case sif.DataSignature:
		fingerprint, err := hex.DecodeString(o.signEntity)
		if err != nil {
			return b, fmt.Errorf("--signentity %q is not hexadecimal", o.signEntity)
		}
		if len(fingerprint) != 20 {
			return b, fmt.Errorf("--signentity has %d bytes, want the 20 of a fingerprint", len(fingerprint))
		}
		return sif.Signature{Hash: sif.HashType(o.signHash), Entity: [20]byte(fingerprint)}.Extra(), nil
	case sif.DataSBOM:
		for f := sif.SBOMCycloneDXJSON; f <= sif.SBOMSyftJSON; f++ {
			if f.String() == o.sbomFormat {
				return sif.SBOM{Format: f}.Extra(), nil
			}
		}
		return b, fmt.Errorf("a bill of materials needs --sbomformat with a known format, not %q", o.sbomFormat)
	}
	return b, nil
}

// spoolBlob copies r to a file without a name and returns its digest, which
// must be known before the object is written.
func spoolBlob(r io.Reader) (*os.File, sif.Digest, error) {
	f, err := os.CreateTemp(tempDir(""), "sif-blob-")
	if err != nil {
		return nil, "", err
	}
	h := sha256.New()
	err = os.Remove(f.Name())
	if err == nil {
		_, err = io.Copy(io.MultiWriter(f, h), r)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, "", err
	}
	return f, sif.Digest(fmt.Sprintf("sha256:%x", h.Sum(nil))), nil
}
