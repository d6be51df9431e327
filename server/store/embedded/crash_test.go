package embedded

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	crand "crypto/rand"

	"singularity/server/store"
	"singularity/server/store/storetest"
)

type thing struct{ N int }

func numbers(ctx context.Context, r store.Records) (*store.Collection[thing], error) {
	return store.Open(ctx, r, "numbers", store.Options[thing]{Indexes: []store.Index[thing]{
		{Name: "n", Unique: true, Of: func(v *thing) []string { return []string{strconv.Itoa(v.N)} }},
	}})
}

func TestMain(m *testing.M) {
	if dir := os.Getenv("EMBEDDED_TEST_WRITER"); dir != "" {
		fmt.Println(writeForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const crashPart = 100_000

// writeForEver stores blobs, one in two in parts, and for each a document, and
// says so.
func writeForEver(dir string) error {
	ctx := context.Background()
	s, err := Open(dir)
	if err != nil {
		return err
	}
	c, err := numbers(ctx, s.Records)
	if err != nil {
		return err
	}
	start, err := c.Count(ctx, store.Query{})
	if err != nil {
		return err
	}
	for n := int(start); ; n++ {
		name, p := fmt.Sprint("n/", n), storetest.Bytes(n, 2*crashPart+n)
		if n%2 == 0 {
			_, err = s.Blobs.Put(ctx, name, bytes.NewReader(p), storetest.Of(p))
		} else {
			err = inParts(ctx, s.Blobs, name, p)
		}
		if err != nil {
			return err
		}
		fmt.Println("blob", n)
		if _, err := c.Insert(ctx, strconv.Itoa(n), thing{n}); err != nil && !errors.Is(err, store.ErrExists) {
			return err
		}
		fmt.Println("record", n)
	}
}

func inParts(ctx context.Context, b *Blobs, name string, p []byte) error {
	u, err := b.Start(ctx, store.Plan{Size: int64(len(p)), PartSize: crashPart})
	if err != nil {
		return err
	}
	for i := range u.Plan.Parts() {
		part := p[i*crashPart : min((i+1)*crashPart, len(p))]
		if _, err := b.PutPart(ctx, u.ID, i+1, bytes.NewReader(part), storetest.Of(part)); err != nil {
			return err
		}
	}
	_, err = b.Complete(ctx, u.ID, name, storetest.Of(p))
	return err
}

// TestKill kills a writer at any moment, again and again: what it acknowledged
// is there, what is there is whole, and no temporary file is left (SC-160).
func TestKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	blobs, records := -1, -1
	for round := range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "EMBEDDED_TEST_WRITER="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, left := bufio.NewScanner(out), 0
		if n, err := crand.Int(crand.Reader, big.NewInt(12)); err == nil {
			left = 1 + int(n.Int64())
		}
		for lines.Scan() {
			word, text, _ := strings.Cut(lines.Text(), " ")
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Fatalf("the writer says: %s", lines.Text())
			}
			if word == "blob" {
				blobs = max(blobs, n)
			} else {
				records = max(records, n)
			}
			if left--; left == 0 {
				// What it writes from here on is cut somewhere.
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		if !cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
			t.Fatalf("the writer ended by itself: %v", cmd.ProcessState)
		}
		if t.Failed() {
			return
		}
		checkAfterCrash(t, dir, blobs, records)
		t.Logf("round %d: %d blobs, %d records", round, blobs+1, records+1)
	}
	if records < 5 {
		t.Errorf("only %d records were written: the test proves nothing", records+1)
	}
}

func checkAfterCrash(t *testing.T, dir string, blobs, records int) {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := numbers(t.Context(), s.Records)
	if err != nil {
		t.Fatal(err)
	}
	for n := range records + 1 {
		if got, err := c.Find(t.Context(), "n", strconv.Itoa(n)); err != nil || got.Value.N != n {
			t.Errorf("record %d was acknowledged: %+v %v", n, got, err)
		}
	}
	for n := range blobs + 1 {
		if _, err := s.Blobs.Stat(t.Context(), fmt.Sprint("n/", n)); err != nil {
			t.Errorf("blob %d was acknowledged: %v", n, err)
		}
	}
	checkWhole(t, s.Blobs)
	if left, _ := filepath.Glob(filepath.Join(dir, "uploads", temporary+"*")); len(left) > 0 {
		t.Errorf("left after the next start: %q", left)
	}
	var broken string
	if err := s.Records.read.QueryRow("PRAGMA integrity_check").Scan(&broken); err != nil || broken != "ok" {
		t.Errorf("the database: %s %v", broken, err)
	}
}

// checkWhole: every blob that has a name is what its name says.
func checkWhole(t *testing.T, b *Blobs) {
	t.Helper()
	for i, err := range b.List(t.Context(), "n/") {
		if err != nil {
			t.Fatal(err)
		}
		n, _ := strconv.Atoi(strings.TrimPrefix(i.Name, "n/"))
		f, err := b.Open(t.Context(), i.Name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		f.Close()
		if err != nil || !bytes.Equal(got, storetest.Bytes(n, 2*crashPart+n)) {
			t.Errorf("blob %d is torn: %d bytes, %v", n, len(got), err)
		}
	}
}

// TestFaults fails one step after another, by a full disk and by a broken one:
// a blob is whole or absent, the error says so, and a new try works (SC-160).
func TestFaults(t *testing.T) {
	for _, fault := range []error{syscall.ENOSPC, syscall.EIO} {
		for fail := 1; ; fail++ {
			if fail > 60 {
				t.Fatal("the steps do not end")
			}
			if !failStep(t, fail, fault) {
				t.Logf("%v: %d steps failed one by one", fault, fail-1)
				break
			}
		}
	}
}

// failStep stores a blob each way, fails the step with that number, and tells
// whether there was such a step.
func failStep(t *testing.T, fail int, fault error) bool {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	s := openStore(t, dir)
	step, at := 0, ""
	s.Blobs.fault = func(name string) error {
		if step++; step == fail {
			at = name
			return fault
		}
		return nil
	}
	ctx := t.Context()
	for n := range 2 {
		name, p := fmt.Sprint("n/", n), storetest.Bytes(n, 2*crashPart+n)
		var err error
		if n == 0 {
			_, err = s.Blobs.Put(ctx, name, bytes.NewReader(p), storetest.Of(p))
		} else {
			err = inParts(ctx, s.Blobs, name, p)
		}
		failed := at != "" && err != nil
		if err != nil && !errors.Is(err, fault) || errors.Is(err, store.ErrFull) != (failed && fault == syscall.ENOSPC) {
			t.Errorf("step %d, %s: %v", fail, at, err)
		}
		if _, e := s.Blobs.Stat(ctx, name); err == nil && e != nil {
			t.Errorf("step %d, %s: acknowledged, but %v", fail, at, e)
		}
		checkWhole(t, s.Blobs)
		if err == nil {
			continue
		}
		if _, err := s.Blobs.Put(ctx, name, bytes.NewReader(p), storetest.Of(p)); err != nil {
			t.Errorf("step %d, %s: the next try: %v", fail, at, err)
		}
		break
	}
	s.Close()
	checkAfterCrash(t, dir, -1, -1)
	return at != ""
}

// TestResume goes on with an upload after a new start, in the middle of its
// parts, and takes no part that was only half there.
func TestResume(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := storetest.Bytes(1, 3*crashPart)
	s := openStore(t, dir)
	u, err := s.Blobs.Start(t.Context(), store.Plan{Size: int64(len(p)), PartSize: crashPart})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if n > 0 {
			s.Close()
			s = openStore(t, dir)
		}
		if _, err := s.Blobs.PutPart(t.Context(), u.ID, n+1, bytes.NewReader(p[n*crashPart:(n+1)*crashPart]), store.Unknown); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Blobs.find(u.ID); err != nil || got.note.Through != 3 {
		t.Errorf("the hash of the whole has not gone on: %+v %v", got.note, err)
	}
	if _, err := s.Blobs.Complete(t.Context(), u.ID, "n/x", storetest.Of(p)); err != nil {
		t.Fatal(err)
	}
}
