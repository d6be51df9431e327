package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"singularity/sif"
	"singularity/squashfs"
	"singularity/squashfs/compress"
)

// assemble packs the root file system into a SIF beside the target and gives
// it its name once it is whole and on disk.
func (b *builder) assemble(ctx context.Context) error {
	f, err := os.CreateTemp(filepath.Dir(b.target.path), imagePrefix+"*.sif")
	if err != nil {
		return err
	}
	b.temporary(f.Name())
	err = b.writeSIF(ctx, f)
	if err == nil {
		err = f.Chmod(os.FileMode(0o755 &^ b.o.Umask))
	}
	if err == nil {
		err = b.giveToSudoUser(f)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = b.target.place(f.Name())
	}
	if err != nil {
		err = b.explain(err) // while the file still fills the disk
		os.Remove(f.Name())
	}
	return err
}

func (b *builder) writeSIF(ctx context.Context, f *os.File) error {
	o := sif.CreateOptions{LaunchScript: sif.LaunchScript}
	if t, ok := b.o.sourceDate(); ok {
		o.Time, o.IDFrom = time.Unix(t, 0), contentID
	}
	part := sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: b.arch}
	write := b.pack
	if b.o.Seal != nil {
		part.FS, write = sif.FSEncryptedSquashfs, b.packSealed
	}
	var objects []sif.Input
	if !b.o.StripMetadata {
		objects = []sif.Input{{Type: sif.DataDefFile, Group: sif.DefaultGroup, Data: bytes.NewReader(b.def.Text)},
			{Type: sif.DataJSON, Group: sif.DefaultGroup, Name: "inspect-metadata.json", Data: bytes.NewReader(b.inspect)}}
		if b.base != nil {
			objects = append(objects, sif.Input{Type: sif.DataJSON, Group: sif.DefaultGroup, Name: "oci-config.json", Data: bytes.NewReader(b.base.source.RawConfig)})
		}
	}
	objects = append(objects, sif.Input{Type: sif.DataPartition, Group: sif.DefaultGroup, Extra: part.Extra(), Write: func(w *io.OffsetWriter) (int64, error) {
		return write(ctx, w)
	}})
	if b.o.Message != nil {
		m := sif.CryptoMessage{Format: sif.FormatPEM, Message: sif.MessageRSAOAEP}
		objects = append(objects, sif.Input{Type: sif.DataCryptoMessage, Group: sif.DefaultGroup, Link: uint32(len(objects)), Extra: m.Extra(), Data: bytes.NewReader(b.o.Message)})
	}
	if _, err := sif.Create(f, o, objects...); err != nil {
		return err
	}
	return b.addRecords(ctx, f, o.Time)
}

// packSealed writes the root file system encrypted: what is plain stays in
// memory.
func (b *builder) packSealed(ctx context.Context, out io.WriterAt) (int64, error) {
	w, err := b.o.Seal(ctx, out)
	if err != nil {
		return 0, err
	}
	plain, err := b.keepPlain(w)
	if err == nil {
		_, err = b.pack(ctx, plain)
	}
	if err != nil {
		w.Abort()
		if b.plain != nil {
			b.plain.Close()
		}
		return 0, err
	}
	return w.Close()
}

// pack writes the root file system as squashfs.
func (b *builder) pack(ctx context.Context, out io.WriterAt) (int64, error) {
	wo, err := b.writerOptions()
	if err != nil {
		return 0, err
	}
	wo.NewEncoder = func(c squashfs.Compression, level, blockSize int) (squashfs.Encoder, error) {
		return compress.New(c.String(), level, blockSize)
	}
	wo.Digest = sha256.Sum256
	w, err := squashfs.NewWriter(out, wo)
	if err != nil {
		return 0, err
	}
	const phase = "Creating SIF file"
	po := PackOptions{
		AllRoot: b.o.Owners == SingleID || b.o.Squashfs.AllRoot, CapabilityV2: b.o.Owners != RealRoot,
		Progress: func(_ int, bytes int64) { b.o.progress(phase, bytes, 0) },
	}
	totals, err := PackTree(ctx, b.root, w, po)
	if err == nil && b.sandbox != nil {
		frame := totals.Xattrs
		totals, err = b.emitSandbox(ctx, w, po)
		totals.Xattrs += frame
	}
	if err == nil {
		err = b.emit(ctx, w, wo.ModTime, func(bytes int64) { totals.Bytes = bytes; b.o.progress(phase, bytes, 0) })
	}
	if err != nil {
		w.Abort()
		return 0, err
	}
	size, err := w.Close()
	b.o.progressDone(phase, totals.Bytes)
	if totals.Xattrs > 0 {
		b.o.Log.Verbose(fmt.Sprintf("%d extended attributes that an image cannot hold are left out", totals.Xattrs))
	}
	return size, err
}

// contentID names an image by its root file system, so that the same content
// has the same id.
func contentID(f *sif.File) (sif.ID, error) {
	o, err := f.Primary()
	if err != nil {
		return sif.ID{}, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f.Reader(o)); err != nil {
		return sif.ID{}, err
	}
	return sif.ContentID([32]byte(h.Sum(nil))), nil
}

// giveToSudoUser gives an image made with sudo to who called it.
func (b *builder) giveToSudoUser(f *os.File) error {
	if b.o.Owners != RealRoot || !strings.Contains(b.o.getenv("SUDO_COMMAND"), "singularity") {
		return nil
	}
	uid, err := strconv.ParseUint(b.o.getenv("SUDO_UID"), 10, 31)
	if err != nil {
		return nil
	}
	gid, err := strconv.ParseUint(b.o.getenv("SUDO_GID"), 10, 31)
	if err != nil {
		return nil
	}
	return f.Chown(int(uid), int(gid))
}
