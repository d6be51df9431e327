package action

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/container/env"
	"singularity/plan"
)

// filesVariable names the descriptor with what environment files set.
const filesVariable = "SINGULARITY_ENV_FILES_FD"

// maxFileEnv bounds what environment files set, in bytes: more than execve
// takes.
const maxFileEnv = 8 << 20

// An EnvShell evaluates the text of an environment file, of that name, with the
// variables of environ and positional parameters. It returns what the file sets.
type EnvShell func(name, text string, environ, args []string) ([]string, error)

// EnvFiles evaluates the environment files of v. With a nil shell it knows only
// the plain ones and returns false if there is any other: the program that has
// a shell must do it.
func (v *Invocation) EnvFiles(shell EnvShell) (done bool, err error) {
	o := &v.Options
	if len(o.EnvFile) == 0 {
		return true, nil
	}
	if word, ok := os.LookupEnv(filesVariable); ok {
		os.Unsetenv(filesVariable)
		o.FileEnv, err = receiveFileEnv(word)
		return true, err
	}
	environ := append(os.Environ(), "SINGULARITY_IMAGE="+v.Image)
	var lists [][]string
	for _, name := range o.EnvFile {
		text, err := readEnvFile(name, shell != nil)
		if err == errNotRegular {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		vars, plain := env.File(text, environ)
		if !plain {
			if shell == nil {
				return false, nil
			}
			if vars, err = shell(name, env.FileText(text), environ, v.Args); err != nil {
				return false, Fatal(errors.New("cannot use environment file "+strconv.Quote(name)+": "+err.Error()), "")
			}
		}
		lists = append(lists, vars)
	}
	o.FileEnv = env.FromFiles(lists...)
	return true, nil
}

var errNotRegular = errors.New("not a regular file")

// readEnvFile reads the environment file called name. Only with any set it
// reads one that cannot be read twice, such as a pipe.
func readEnvFile(name string, any bool) (string, error) {
	fail := func(err error) error {
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			err = pe.Err
		}
		return Fatal(errors.New("cannot read environment file "+strconv.Quote(name)+": "+err.Error()), "")
	}
	if !any {
		if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
			return "", errNotRegular
		}
	}
	f, err := os.Open(name)
	if err != nil {
		return "", fail(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, env.MaxFile+1))
	if err != nil {
		return "", fail(err)
	}
	if len(text) > env.MaxFile {
		return "", fail(errors.New("it is larger than " + strconv.Itoa(env.MaxFile>>10) + " KiB"))
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		return "", fail(errors.New("line " + strconv.Itoa(1+bytes.Count(text[:i], []byte("\n"))) + " holds a zero byte: this is no text"))
	}
	return string(text), nil
}

// ShareFileEnv leaves what environment files set for the program that this
// process becomes.
func (v *Invocation) ShareFileEnv() error { return shareFileEnv(&v.Options) }

func shareFileEnv(o *plan.Options) error {
	if len(o.EnvFile) == 0 {
		return nil
	}
	text := strings.Join(o.FileEnv, "\x00")
	if len(text) > maxFileEnv {
		return Fatal(errors.New("cannot use what the environment files set: it is larger than "+strconv.Itoa(maxFileEnv>>20)+" MiB"), "")
	}
	fd, err := unix.MemfdCreate("environment", 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "environment")
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	return os.Setenv(filesVariable, strconv.Itoa(fd))
}

var errFileEnv = errors.New("cannot read the variables of --env-file: " + filesVariable + " names no list of them")

// receiveFileEnv reads what ShareFileEnv left in the descriptor word.
func receiveFileEnv(word string) ([]string, error) {
	fd, err := strconv.Atoi(word)
	if err != nil || fd < 3 {
		return nil, errFileEnv
	}
	f := os.NewFile(uintptr(fd), "environment")
	if f == nil {
		return nil, errFileEnv
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, maxFileEnv+1))
	if err != nil || len(text) > maxFileEnv {
		return nil, errFileEnv
	}
	if len(text) == 0 {
		return nil, nil
	}
	return env.FromFiles(strings.Split(string(text), "\x00")), nil
}

// userVariables are what the user sets for the container, in rising authority.
func (s *starter) userVariables(host []string) []string {
	for _, v := range s.o.Env {
		name, _, _ := strings.Cut(v, "=")
		for _, f := range s.o.FileEnv {
			if strings.HasPrefix(f, name+"=") {
				s.log.Warning("--env " + name + " overrides the value that --env-file sets")
			}
		}
	}
	return append(append(env.UserVariables(host), s.o.FileEnv...), s.o.Env...)
}
