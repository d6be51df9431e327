package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"singularity/server/store"
)

// blockSize is what is read from a sender before it is sent on. The protocol
// takes at most maxBlocks of an object, none below 5 MiB but the last.
const (
	blockSize = 8 << 20
	maxBlocks = 10_000
)

// piece is an object with bytes of a blob.
type piece struct {
	Key  string `json:"key"`
	Size int64  `json:"size"`
}

// intake reads what a sender gives, hashes it and compares it with what was
// declared.
type intake struct {
	r     io.Reader
	h     hash.Hash
	whole hash.Hash // goes on over several parts; may be nil
	want  store.Content
	n     int64
}

// block fills p and tells whether that was all; then it was what was declared.
func (in *intake) block(ctx context.Context, p []byte) (int, bool, error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	if in.want.Size >= 0 {
		p = p[:min(int64(len(p)), in.want.Size-in.n)]
	}
	n, err := io.ReadFull(in.r, p)
	in.h.Write(p[:n])
	if in.whole != nil {
		in.whole.Write(p[:n])
	}
	in.n += int64(n)
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		if in.want.Size >= 0 && in.n != in.want.Size {
			return n, true, fmt.Errorf("%w: %d bytes came, not %d", store.ErrContent, in.n, in.want.Size)
		}
	case err != nil:
		return n, true, fmt.Errorf("%w: %w", store.ErrContent, err)
	case in.want.Size < 0 || in.n < in.want.Size:
		return n, false, nil
	default:
		var more [1]byte
		if n, _ := io.ReadFull(in.r, more[:]); n > 0 {
			return n, true, fmt.Errorf("%w: more than %d bytes came", store.ErrContent, in.want.Size)
		}
	}
	if sum := in.sum(); in.want.SHA256 != "" && sum != in.want.SHA256 {
		return n, true, fmt.Errorf("%w: the SHA-256 is %s, not %s", store.ErrContent, sum, in.want.SHA256)
	}
	return n, true, nil
}

func (in *intake) sum() string { return hex.EncodeToString(in.h.Sum(nil)) }

func newIntake(r io.Reader, whole hash.Hash, want store.Content) *intake {
	return &intake{r: r, h: sha256.New(), whole: whole, want: want}
}

// send makes what comes the object key, whole or not at all. Of nothing no object
// is made.
func (b *Blobs) send(ctx context.Context, key string, in *intake) error {
	if in.want.Size > blockSize*maxBlocks {
		return fmt.Errorf("%w: %d bytes in one piece, more than %d", store.ErrInvalid, in.want.Size, int64(blockSize*maxBlocks))
	}
	first := b.blocks.Get().(*[]byte)
	defer b.blocks.Put(first)
	n, last, err := in.block(ctx, *first)
	if err != nil || last && n == 0 {
		return err
	}
	if !last {
		return b.sendBlocks(ctx, key, in, *first)
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	p := (*first)[:n]
	_, err = b.core.PutObject(ctx, b.o.Bucket, key, bytes.NewReader(p), int64(n), "", sumOf(p), minio.PutObjectOptions{ServerSideEncryption: b.sse, ContentType: "application/octet-stream"})
	return full(err)
}

func sumOf(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}

// sendBlocks sends an object in several requests, one block while the next is
// read, and completes it if all was as declared.
func (b *Blobs) sendBlocks(ctx context.Context, key string, in *intake, first []byte) (err error) {
	id, err := b.core.NewMultipartUpload(ctx, b.o.Bucket, key, minio.PutObjectOptions{ServerSideEncryption: b.sse, ContentType: "application/octet-stream"})
	if err != nil {
		return full(err)
	}
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTime)
			defer cancel()
			b.core.AbortMultipartUpload(ctx, b.o.Bucket, key, id) // the rest is swept
		}
	}()
	second := b.blocks.Get().(*[]byte)
	defer b.blocks.Put(second)
	both := [2][]byte{first, *second}
	var parts []minio.CompletePart
	type answer struct {
		part minio.ObjectPart
		err  error
	}
	sent := make(chan answer, 1)
	for k, n, last := 0, len(first), false; n > 0; k++ {
		if k == maxBlocks {
			return fmt.Errorf("%w: more than %d bytes in one piece", store.ErrContent, int64(blockSize*maxBlocks))
		}
		p := both[k%2][:n]
		go func() {
			ctx, cancel := context.WithTimeout(ctx, callTime)
			defer cancel()
			part, err := b.core.PutObjectPart(ctx, b.o.Bucket, key, id, k+1, bytes.NewReader(p), int64(len(p)), minio.PutObjectPartOptions{Sha256Hex: sumOf(p)})
			sent <- answer{part, err}
		}()
		n = 0
		var wrong error
		if !last {
			n, last, wrong = in.block(ctx, both[(k+1)%2])
		}
		a := <-sent
		if wrong == nil {
			wrong = full(a.err)
		}
		if wrong != nil {
			return wrong
		}
		parts = append(parts, minio.CompletePart{PartNumber: k + 1, ETag: a.part.ETag})
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err = b.core.CompleteMultipartUpload(ctx, b.o.Bucket, key, id, parts, minio.PutObjectOptions{})
	return full(err)
}

// full tells a full storage from other faults.
func full(err error) error {
	if err == nil {
		return nil
	}
	switch minio.ToErrorResponse(err).Code {
	case "QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity", "XAdminBucketQuotaExceeded":
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	return err
}

// get opens bytes from <= x < to of an object.
func (b *Blobs) get(ctx context.Context, key string, from, to int64) (io.ReadCloser, error) {
	var o minio.GetObjectOptions
	if err := o.SetRange(from, to-1); err != nil {
		return nil, err
	}
	r, _, _, err := b.core.GetObject(ctx, b.o.Bucket, key, o)
	return r, err
}

func (b *Blobs) removeObject(ctx context.Context, key string) error {
	err := b.core.RemoveObject(ctx, b.o.Bucket, key, minio.RemoveObjectOptions{})
	if err != nil && minio.ToErrorResponse(err).Code == "NoSuchKey" {
		return nil
	}
	return err
}

// The bytes that are asked for at once: more and more while somebody reads on, so
// that a short range costs little, and a connection is used again.
const (
	firstWindow = 1 << 20
	maxWindow   = 64 << 20
	smallRead   = 64 << 10 // what is kept around a short read at a place
	rereads     = 3
)

// object reads a blob.
type object struct {
	b      *Blobs
	ctx    context.Context
	info   store.Info
	pieces []piece

	off    int64
	stream io.ReadCloser
	at     int64 // where the stream is
	end    int64 // where it ends
	window int64

	mu    sync.Mutex
	block []byte // of short reads
	start int64
}

func (o *object) Info() store.Info { return o.info }

func (o *object) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += o.off
	case io.SeekEnd:
		offset += o.info.Size
	}
	if offset < 0 {
		return 0, errors.New("a place before the beginning of a blob")
	}
	o.off = offset
	return offset, nil
}

// find returns the piece with the byte at off and where the piece begins.
func (o *object) find(off int64) (piece, int64) {
	var begin int64
	for _, p := range o.pieces {
		if off < begin+p.Size {
			return p, begin
		}
		begin += p.Size
	}
	return piece{}, begin
}

func (o *object) Read(p []byte) (int, error) {
	if o.off >= o.info.Size {
		return 0, io.EOF
	}
	var err error
	for range rereads {
		if o.stream == nil || o.at != o.off || o.at >= o.end {
			if err = o.open(); err != nil {
				continue
			}
		}
		var n int
		n, err = o.stream.Read(p[:min(int64(len(p)), o.end-o.at)])
		o.off += int64(n)
		o.at += int64(n)
		if n > 0 || len(p) == 0 {
			return n, nil
		}
		o.drop()
		if o.ctx.Err() != nil {
			break
		}
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return 0, fmt.Errorf("cannot read the blob %s: %w", o.info.Name, err)
}

// open asks for what comes next.
func (o *object) open() error {
	goesOn := o.stream != nil && o.at == o.off
	o.drop()
	o.window = min(4*o.window, maxWindow)
	if !goesOn || o.window == 0 {
		o.window = firstWindow
	}
	p, begin := o.find(o.off)
	end := min(begin+p.Size, o.off+o.window)
	r, err := o.b.get(o.ctx, p.Key, o.off-begin, end-begin)
	if err != nil {
		return err
	}
	o.stream, o.at, o.end = r, o.off, end
	return nil
}

func (o *object) drop() {
	if o.stream != nil {
		o.stream.Close()
		o.stream = nil
	}
}

func (o *object) Close() error {
	o.drop()
	return nil
}

// ReadAt reads at a place. Around a short read more is fetched and kept: whoever
// reads a header goes on beside it.
func (o *object) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("a place before the beginning of a blob")
	}
	rest := max(0, o.info.Size-off)
	n := int(min(int64(len(p)), rest))
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	var err error
	if n <= smallRead/2 {
		err = o.readSmall(p[:n], off)
	} else {
		err = o.fetch(p[:n], off)
	}
	if err != nil {
		return 0, fmt.Errorf("cannot read the blob %s: %w", o.info.Name, err)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (o *object) readSmall(p []byte, off int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if off < o.start || off+int64(len(p)) > o.start+int64(len(o.block)) {
		block := make([]byte, min(smallRead, o.info.Size-off))
		if err := o.fetch(block, off); err != nil {
			return err
		}
		o.block, o.start = block, off
	}
	copy(p, o.block[off-o.start:])
	return nil
}

// fetch fills p from the pieces at off.
func (o *object) fetch(p []byte, off int64) error {
	for len(p) > 0 {
		part, begin := o.find(off)
		n := min(int64(len(p)), begin+part.Size-off)
		if n <= 0 {
			return io.ErrUnexpectedEOF
		}
		var err error
		for range rereads {
			var r io.ReadCloser
			if r, err = o.b.get(o.ctx, part.Key, off-begin, off-begin+n); err == nil {
				_, err = io.ReadFull(r, p[:n])
				r.Close()
			}
			if err == nil || o.ctx.Err() != nil {
				break
			}
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (b *Blobs) key(id string, name ...string) string {
	return b.o.Prefix + "data/" + id + "/" + strings.Join(name, "-")
}

// listing gives the keys below a beginning.
func (b *Blobs) listing(ctx context.Context, prefix string) ([]string, error) {
	var keys []string
	for o := range b.core.Client.ListObjects(ctx, b.o.Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return nil, o.Err
		}
		keys = append(keys, o.Key)
	}
	return keys, nil
}

// presign makes an address from which one object can be read for some time.
func (b *Blobs) presign(ctx context.Context, key string, life time.Duration) (string, error) {
	u, err := b.core.PresignedGetObject(ctx, b.o.Bucket, key, life, nil)
	if err != nil {
		return "", err
	}
	return u.String(), nil
}
