package action

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEnvFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain, later, full := file("plain", "A=1\nB=$SINGULARITY_IMAGE\n"), file("later", "A=2\r\n"), file("full", "A=$(x)\n")
	v := &Invocation{Image: "img.sif", Args: []string{"true"}}
	v.Options.EnvFile = []string{plain, later}
	if done, err := v.EnvFiles(nil); !done || err != nil || !slices.Equal(v.Options.FileEnv, []string{"A=2", "B=img.sif"}) {
		t.Errorf("%v, %v, %q", done, err, v.Options.FileEnv)
	}
	v.Options.EnvFile = []string{plain, full}
	if done, err := v.EnvFiles(nil); done || err != nil {
		t.Errorf("without a shell: %v, %v", done, err)
	}
	shell := func(name, text string, environ, args []string) ([]string, error) {
		if name != full || text != "A=$(x)\n" || !slices.Contains(environ, "SINGULARITY_IMAGE=img.sif") || !slices.Equal(args, []string{"true"}) {
			t.Errorf("the shell got %q, %q, %q", name, text, args)
		}
		return []string{"A=3", "UID=0", "PWD=/", "bad name=1"}, nil
	}
	if done, err := v.EnvFiles(shell); !done || err != nil || !slices.Equal(v.Options.FileEnv, []string{"A=3", "B=img.sif"}) {
		t.Errorf("with a shell: %v, %v, %q", done, err, v.Options.FileEnv)
	}
	if _, err := v.EnvFiles(func(string, string, []string, []string) ([]string, error) { return nil, errors.New("line 1: no") }); err == nil ||
		err.Error() != `cannot use environment file "`+full+`": line 1: no` {
		t.Errorf("error %v", err)
	}
	v.Options.EnvFile = []string{os.DevNull}
	if done, err := v.EnvFiles(nil); done || err != nil {
		t.Errorf("a device is read twice: %v, %v", done, err)
	}
	for name, want := range map[string]string{file("zero", "A=1\nB=\x00"): "line 2 holds a zero byte", file("big", strings.Repeat("#", 1<<20+1)): "larger than 1024 KiB", dir + "/none": "no such file or directory"} {
		v.Options.EnvFile = []string{name}
		if _, err := v.EnvFiles(nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
}

// TestShareFileEnv: what one program leaves the next one finds, once.
func TestShareFileEnv(t *testing.T) {
	t.Setenv(filesVariable, "")
	for _, list := range [][]string{{"A=1", "B=two\nlines", "C="}, nil} {
		v, next := new(Invocation), new(Invocation)
		v.Options.EnvFile, v.Options.FileEnv = []string{"f"}, list
		next.Options.EnvFile = []string{"f"}
		if err := v.ShareFileEnv(); err != nil {
			t.Fatal(err)
		}
		if done, err := next.EnvFiles(nil); !done || err != nil || !slices.Equal(next.Options.FileEnv, list) {
			t.Errorf("%v, %v, %q, want %q", done, err, next.Options.FileEnv, list)
		}
		if _, found := os.LookupEnv(filesVariable); found {
			t.Error("the variable stays")
		}
	}
	for _, word := range []string{"", "x", "-1", "2", "9999"} {
		t.Setenv(filesVariable, word)
		v := new(Invocation)
		v.Options.EnvFile = []string{"f"}
		if _, err := v.EnvFiles(nil); err == nil {
			t.Errorf("%q is taken for a descriptor", word)
		}
	}
}

func TestBirth(t *testing.T) {
	for _, b := range []birth{{true, nil, []string{"A=1", "B=x\ny"}, []string{"singularity", "instance", "start"}}, {false, []byte("a\x00b"), nil, []string{"singularity", ""}},
		{false, []byte{}, nil, []string{"singularity"}}} {
		if got := decodeBirth(b.encode()); got.leader != b.leader || !bytes.Equal(got.passphrase, b.passphrase) || (got.passphrase == nil) != (b.passphrase == nil) || !slices.Equal(got.fileEnv, b.fileEnv) || !slices.Equal(got.argv, b.argv) {
			t.Errorf("%v became %v", b, got)
		}
	}
	for _, text := range []string{"", "true", "-1\x00true", "-1\x00true\x00x\x00", "-1\x00true\x002\x00A=1", "-1\x00true\x00-1\x00a", "-2\x00true\x000\x00a", "50\x00true\x000\x00a"} {
		if got := decodeBirth([]byte(text)); got.argv != nil {
			t.Errorf("%q became %v", text, got)
		}
	}
}
