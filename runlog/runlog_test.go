package runlog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func record(t *testing.T) Record {
	t.Helper()
	p := filepath.Join(t.TempDir(), "image.sif")
	if err := os.WriteFile(p, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	host, _ := os.Hostname()
	r := Record{Start: time.Now().UTC(), Host: host, Verb: "exec", Job: "SLURM:17"}
	if err := r.Describe(f, p); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLife(t *testing.T) {
	spool := t.TempDir()
	e, err := Write(spool, record(t))
	if err != nil {
		t.Fatal(err)
	}
	list, bad, err := Read(spool)
	if err != nil || bad != 0 || len(list) != 1 || !list[0].End.IsZero() || list[0].UID != uint32(os.Getuid()) || list[0].Job != "SLURM:17" {
		t.Fatalf("%+v, %d bad, %v", list, bad, err)
	}
	f, err := os.Open(list[0].Image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !list[0].Same(f) {
		t.Error("the image is not known again")
	}
	at := time.Now().Add(time.Minute).UTC()
	if err := e.End(at); err != nil {
		t.Fatal(err)
	}
	list, _, _ = Read(spool)
	if !list[0].End.Equal(at) {
		t.Errorf("end %v, want %v", list[0].End, at)
	}
	if err := Remove(spool, list[0]); err != nil {
		t.Fatal(err)
	}
	if names, _ := os.ReadDir(spool); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

// TestGone: a run whose process was killed has ended.
func TestGone(t *testing.T) {
	spool := t.TempDir()
	e, err := Write(spool, record(t))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(e.path)
	os.Remove(e.path)
	s := strings.Replace(string(b), `ticks="`, `ticks="1`, 1)
	if err := os.WriteFile(e.path, []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
	list, _, _ := Read(spool)
	if len(list) != 1 || list[0].End.IsZero() {
		t.Errorf("%+v", list)
	}
}

// TestForged: what is no file of its writer's own, or says what no record says,
// is passed over; whose run it is, the owner of the file tells.
func TestForged(t *testing.T) {
	spool := t.TempDir()
	e, err := Write(spool, record(t))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(e.path)
	put := func(id, text string) {
		if err := os.WriteFile(filepath.Join(spool, id+suffix), []byte(strings.Replace(text, list(e), id, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("UID", string(b)+"uid=\"4242\"\n")
	put("ESCAPE", strings.Replace(string(b), `job="`, `job="\x1b[31m`, 1))
	put("LONG", string(b)+strings.Repeat(" ", maxRecord))
	put("OTHER", strings.Replace(string(b), `id="`, `id="x`, 1))
	os.Symlink("/etc/passwd", filepath.Join(spool, "LINK"+suffix))
	os.Link(e.path, filepath.Join(spool, "SECOND"+suffix))
	os.Mkdir(filepath.Join(spool, "DIR"+suffix), 0o755)
	got, bad, err := Read(spool)
	if err != nil {
		t.Fatal(err)
	}
	// The first has two names now, so that it is none any more.
	if len(got) != 1 || got[0].ID != "UID" || got[0].UID != uint32(os.Getuid()) || bad != 7 {
		t.Errorf("%+v, %d bad", got, bad)
	}
}

func list(e *Entry) string { return strings.TrimSuffix(filepath.Base(e.path), suffix) }

func TestJob(t *testing.T) {
	env := map[string]string{"JOB_ID": "9", "SLURM_JOB_ID": "17"}
	if got := Job(func(k string) string { return env[k] }); got != "SLURM:17" {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	r := Record{ID: "a", Start: time.Unix(1, 2).UTC(), Host: "h", Image: "/x y"}
	f.Add(string(r.text()))
	f.Fuzz(func(t *testing.T, s string) {
		var r, again Record
		if r.parse(s) != nil {
			return
		}
		if err := again.parse(string(r.text())); err != nil || again != r {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

// FuzzRecord: whatever lies in a spool is a record of its owner or none.
func FuzzRecord(f *testing.F) {
	f.Add([]byte("id=\"x\"\nstart=\"2026-01-02T03:04:05Z\"\n"), []byte("2026-01-02T03:04:05Z"))
	r := Record{ID: strings.Repeat("a", idSize), Start: time.Now(), Host: "h", Verb: "exec", Image: "/x y", PID: 1}
	f.Add(r.text(), []byte("x"))
	f.Fuzz(func(t *testing.T, run, end []byte) {
		spool := t.TempDir()
		id := strings.Repeat("a", idSize)
		if os.WriteFile(filepath.Join(spool, id+suffix), run, 0o600) != nil || os.WriteFile(filepath.Join(spool, id+endSuffix), end, 0o600) != nil {
			t.Skip("no room")
		}
		list, bad, err := Read(spool)
		if err != nil || len(list)+bad != 1 {
			t.Fatalf("%+v, %d bad, %v", list, bad, err)
		}
		for _, r := range list {
			if r.ID != id || r.UID != uint32(os.Getuid()) || strings.ContainsAny(r.Host+r.Job+r.Verb+r.Image+r.Digest, "\x1b\n\x00") {
				t.Errorf("%+v", r)
			}
		}
	})
}
