package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"singularity/linux/lockfile"
	"singularity/sif"
)

// sifExample writes the worked example of doc/format/sif.md, with signatures of
// zeros, and returns its path.
func sifExample(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "example.sif")
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	o := sif.CreateOptions{
		ID:           sif.ID{0x0f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a, 0x46, 0x97, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11},
		Time:         time.Unix(1700000000, 0),
		LaunchScript: sif.LaunchScript,
	}
	zeros := func(n int) *bytes.Reader { return bytes.NewReader(make([]byte, n)) }
	entity := [20]byte{0x12, 0x04, 0x5c, 0x8c, 0x0b, 0x10, 0x04, 0xd0, 0x58, 0xde, 0x4b, 0xed, 0xa2, 0x0c, 0x27, 0xee, 0x7f, 0xf7, 0xba, 0x84}
	_, err = sif.Create(w, o,
		sif.Input{Type: sif.DataDefFile, Group: 1, Data: strings.NewReader("bootstrap: scratch\n")},
		sif.Input{Type: sif.DataJSON, Group: 1, Name: "inspect-metadata.json", Data: strings.NewReader(`{"example":true}`)},
		sif.Input{Type: sif.DataPartition, Group: 1, Data: zeros(4096), Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: "amd64"}.Extra()},
		sif.Input{Type: sif.DataSignature, Link: 1, LinkIsGroup: true, Data: zeros(1320), Extra: sif.Signature{Hash: sif.HashSHA256, Entity: entity}.Extra()},
		sif.Input{Type: sif.DataSignature, Link: 1, LinkIsGroup: true, Data: zeros(1202), Extra: sif.Signature{Hash: sif.HashSHA256}.Extra()})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// ok runs a command that must succeed without messages.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	out, messages, code := call(args...)
	if code != 0 || messages != "" {
		t.Fatalf("%q: status %d, %s", args, code, messages)
	}
	return out
}

func TestSIFListOfWorkedExample(t *testing.T) {
	want := `------------------------------------------------------------------------------
ID   |GROUP   |LINK    |SIF POSITION (start-end)  |TYPE
------------------------------------------------------------------------------
1    |1       |NONE    |32176-32195               |Def.FILE
2    |1       |NONE    |32195-32211               |JSON.Generic
3    |1       |NONE    |32768-36864               |FS (Squashfs/*System/amd64)
4    |NONE    |1   (G) |36864-38184               |Signature (SHA-256)
5    |NONE    |1   (G) |38184-39386               |Signature (SHA-256)
`
	path := sifExample(t)
	if got := ok(t, "sif", "list", path); got != want {
		t.Errorf("got\n%s", got)
	}
	if got := ok(t, "siftool", "list", path); got != want {
		t.Errorf("siftool: got\n%s", got)
	}
}

func TestSIFGolden(t *testing.T) {
	path := sifExample(t)
	for name, args := range map[string][]string{
		"sif-header.txt":  {"sif", "header", path},
		"sif-header.json": {"sif", "header", path, "--json"},
		"sif-list.json":   {"sif", "list", "-j", path},
		"sif-info-1.txt":  {"sif", "info", "1", path},
		"sif-info-2.txt":  {"sif", "info", "2", path},
		"sif-info-3.txt":  {"sif", "info", "3", path},
		"sif-info-4.txt":  {"sif", "info", "4", path},
		"sif-info-5.json": {"sif", "info", "5", path, "--json"},
		"help-sif.txt":    {"sif"},
		"help-sif-add.txt": {
			"sif", "add", "--help",
		},
	} {
		golden(t, name, ok(t, args...))
	}
	var list []map[string]any
	if err := json.Unmarshal([]byte(ok(t, "sif", "list", path, "--json")), &list); err != nil || len(list) != 5 {
		t.Errorf("%d objects, %v", len(list), err)
	}
}

func TestSIFDump(t *testing.T) {
	path := sifExample(t)
	if got := ok(t, "sif", "dump", "1", path); got != "bootstrap: scratch\n" {
		t.Errorf("got %q", got)
	}
	if got := ok(t, "sif", "dump", "3", path); len(got) != 4096 {
		t.Errorf("%d bytes", len(got))
	}
}

// TestSIFChanges takes an image through every command that changes one, in the
// order in which scripts write the options: last.
func TestSIFChanges(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	dir := t.TempDir()
	image, data := filepath.Join(dir, "a.sif"), filepath.Join(dir, "data")
	if err := os.WriteFile(data, []byte(`{"a":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	ok(t, "sif", "new", image)
	add := func(options ...string) {
		t.Helper()
		ok(t, append([]string{"sif", "add", image, data}, options...)...)
	}
	add("--datatype", "1", "--groupid", "1")
	add("--datatype", "6", "--filename", "x.json", "--groupid", "0xF0000001")
	add("--datatype", "4", "--parttype", "2", "--partfs", "1", "--partarch", "2", "--groupid", "1")
	add("--datatype", "4", "--parttype", "1", "--partfs", "5", "--partarch", "13", "--alignment", "0")
	add("--datatype", "5", "--signhash", "1", "--signentity", "12045C8C0B1004D058DE4BEDA20C27EE7FF7BA84", "--link", "0xF0000001")
	add("--datatype", "9", "--sbomformat", "spdx-json", "--link", "3")
	add("--datatype", "10")
	add("--datatype", "8")
	add("--datatype", "7", "--alignment", "64")
	ok(t, "sif", "setprim", "4", image)
	ok(t, "sif", "del", "1", image)
	var all strings.Builder
	all.WriteString(ok(t, "sif", "header", image) + ok(t, "sif", "list", image))
	for id := 2; id <= 9; id++ {
		all.WriteString(ok(t, "sif", "info", fmt.Sprint(id), image))
	}
	golden(t, "sif-changes.txt", all.String())
	if want := fmt.Sprintf("sha256:%x\n", sha256.Sum256([]byte(`{"a":1}`))); !strings.Contains(all.String(), want) {
		t.Errorf("no digest %s", want)
	}
	if fi, err := os.Stat(image); err != nil || fi.Mode().Perm()&0o700 != 0o700 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestSIFAddFromStandardInput(t *testing.T) {
	path := sifExample(t)
	for _, o := range []sifAddOptions{{dataType: 7}, {dataType: 11}} {
		if err := sifAdd(path, "-", strings.NewReader("piped"), o); err != nil {
			t.Fatal(err)
		}
	}
	if got := ok(t, "sif", "dump", "6", path) + ok(t, "sif", "dump", "7", path); got != "pipedpiped" {
		t.Errorf("got %q", got)
	}
}

func TestSIFErrors(t *testing.T) {
	path := sifExample(t)
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no image"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	add := func(options ...string) []string { return append([]string{"sif", "add", path, text}, options...) }
	for want, args := range map[string][]string{
		"not a SIF image":                            {"sif", "list", text},
		"no such file":                               {"sif", "list", text + "x"},
		"not a regular file":                         {"sif", "list", "/dev/null"},
		"the image has no object 9":                  {"sif", "info", "9", path},
		"cannot delete object 9":                     {"sif", "del", "9", path},
		`object id "x" is not a number`:              {"sif", "dump", "x", path},
		"it is no partition but Def.FILE":            {"sif", "setprim", "1", path},
		"--datatype needs a number":                  add(),
		"from 1 to 11":                               add("--datatype", "12"),
		"needs --partfs":                             add("--datatype", "4", "--partfs", "1", "--parttype", "1"),
		"known architecture":                         add("--datatype", "4", "--partfs", "1", "--parttype", "1", "--partarch", "14"),
		"unknown file system type 9":                 add("--datatype", "4", "--partfs", "9", "--parttype", "1", "--partarch", "2"),
		"image already contains a primary partition": add("--datatype", "4", "--partfs", "1", "--parttype", "2", "--partarch", "2"),
		"has 1 bytes, want the 20":                   add("--datatype", "5", "--signhash", "1", "--signentity", "12"),
		"is not hexadecimal":                         add("--datatype", "5", "--signhash", "1", "--signentity", "zz"),
		"unknown signature hash 0":                   add("--datatype", "5", "--signentity", strings.Repeat("ab", 20)),
		"--sbomformat with a known format":           add("--datatype", "9", "--sbomformat", "x"),
		"to itself":                                  {"sif", "add", path, path, "--datatype", "7"},
		"unknown flag: --nope":                       {"sif", "list", path, "--nope"},
		"accepts 2 arg(s), received 1":               {"sif", "dump", path},
	} {
		out, messages, code := call(args...)
		if code != 1 || out != "" || !strings.Contains(messages, want) {
			t.Errorf("%q: status %d, %q, want %q", args, code, messages, want)
		}
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("a refused change changed the image")
	}
	t.Setenv("SOURCE_DATE_EPOCH", "soon")
	if _, messages, code := call("sif", "new", text+"y"); code != 1 || !strings.Contains(messages, "SOURCE_DATE_EPOCH") {
		t.Errorf("status %d, %s", code, messages)
	}
}

func TestSIFLocked(t *testing.T) {
	path := sifExample(t)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := lockfile.Exclusive(f); err != nil {
		t.Fatal(err)
	}
	if _, messages, code := call("sif", "del", "1", path); code != 1 || !strings.Contains(messages, "in use by another process") {
		t.Errorf("status %d, %s", code, messages)
	}
	ok(t, "sif", "list", path)
}

// TestSIFHostileText proves that text from an image neither drives the terminal
// nor forges lines.
func TestSIFHostileText(t *testing.T) {
	path := sifExample(t)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(b, "#!/bin/x\x1b[2J\nVersion: 7\n\x00\x00\x00\x00\x00\x00\x00\x00")
	copy(b[4096+585+73:], "a\x1b]0;b\x07\nEntity: 1\t\xc2\x9bc\xe2\x80\xae\xff\x00")
	binary.LittleEndian.PutUint64(b[80:], 3) // a wrong count: a warning
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"header"}, {"header", "--json"}, {"list"}, {"list", "--json"}, {"info", "2"}, {"info", "--json", "2"}} {
		out, messages, code := call(append(append([]string{"sif"}, args...), path)...)
		if code != 0 || !strings.Contains(messages, "claims 3 free descriptors, found 43") {
			t.Errorf("%q: status %d, %s", args, code, messages)
		}
		if strings.ContainsAny(out, "\x1b\x07\u009b\u202e\xff") || strings.Contains(out, "\nVersion: 7") || strings.Contains(out, "\nEntity") {
			t.Errorf("%q: %q", args, out)
		}
		if strings.Contains(strings.Join(args, " "), "json") && !json.Valid([]byte(out)) {
			t.Errorf("%q: invalid JSON %q", args, out)
		}
	}
}

func TestByteSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1535: "1 KiB", 1536: "2 KiB", 28080: "27 KiB", 1<<20 - 513: "1023 KiB",
		1<<20 - 512: "1024 KiB", 1 << 20: "1 MiB", 5005920: "5 MiB", 3 << 40: "3 TiB", 1 << 62: "4 EiB", -5: "-5 B",
	} {
		if got := byteSize(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
