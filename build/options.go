package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"singularity/build/deffile"
	"singularity/build/source"
	"singularity/image"
	"singularity/luks"
	"singularity/oci"
	"singularity/sbom"
)

// Owners tells what kind of root the build is, and so which owners files can
// have.
type Owners int

// The kinds of root.
const (
	RealRoot   Owners = iota // uid 0 of the host: any owner
	MappedRoot               // uid 0 of a user namespace with ranges of ids
	SingleID                 // uid 0 of a user namespace with that id alone: everything is root's
)

// Log takes messages for people.
type Log = source.Log

// Progress tells how far a long step is.
type Progress struct {
	Phase string
	Bytes int64 // done so far
	Total int64 // 0 if not known
	Done  bool  // the step has ended
}

// Bind mounts a path of the host in a container that the build runs.
type Bind struct {
	Source, Dest string
	ReadOnly     bool
	IfMissing    bool // a library that is left out where the image has it
}

// Drivers are what --nv or --rocm show of the host in %post and %test.
type Drivers struct {
	Vendor string // "nv", "rocm", or "" for none
	Binds  []Bind
}

// File is a file of a container that is mounted over the one in the image,
// which stays as it is. There is always one: the build makes it if need be.
type File struct {
	Path string
	Data []byte
}

// RunSpec describes a program to run in a container.
type RunSpec struct {
	Rootfs         string // directory; owned by the build, reached by nobody else
	Args           []string
	Env            []string // the whole environment
	Cwd            string   // in the container
	Binds          []Bind
	Files          []File
	Writable       bool  // whether the root file system may be changed
	TmpfsSize      int64 // bytes of memory for changes that are lost at the end; 0 for none
	Owners         Owners
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Runner runs a program in a container and waits for it: no home, no current
// directory, a private /dev and /proc. If the program runs and fails the error
// is an *ExitError. When ctx ends the program is killed.
type Runner func(ctx context.Context, s RunSpec) error

// ExitError says how a program in a container ended.
type ExitError struct {
	Code   int
	Signal int // 0 unless a signal ended it
}

func (e *ExitError) Error() string {
	if e.Signal != 0 {
		return fmt.Sprintf("killed by signal %d", e.Signal)
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// Options are everything a build depends on. Env, Log and Run must be set. The
// umask of the process should be 022; Umask is what the caller's was.
type Options struct {
	Target string // path of the image to make
	Spec   string // path of a definition file or an image

	Sandbox  bool     // make a directory, not a SIF
	Force    bool     // replace what is there; also labels and help of a base image
	Update   bool     // apply the definition to the sandbox that is there
	NoTest   bool     // skip %test
	FixPerms bool     // give root read and write access to everything
	Keep     bool     // keep the temporary directory
	Sections []string // names, without "%"; empty means all
	Binds    []Bind   // for %post and %test
	// FilesRoot, if not empty, is the directory below which %files finds what it
	// names on the host, and FilesDir the path in it that names without a slash
	// at the front are relative to: the files came from another machine.
	FilesRoot, FilesDir string

	// Which image to take where there are several, as --arch and --platform name
	// it, and the Docker daemon to ask.
	Arch, Platform, DockerHost string
	// OpenImage, if not nil, opens an image of a registry by a reference that
	// begins with docker://. Without it there are no such images.
	OpenImage func(ctx context.Context, ref string, p oci.Platform) (*oci.Image, error)
	// FetchImage, if not nil, fetches a SIF image from elsewhere and returns its
	// path and what to call when it is not needed any more.
	FetchImage func(ctx context.Context, ref string) (path string, done func(), err error)
	Drivers    Drivers
	TestTmpfs  int64 // %test may write so many bytes, which are lost; 0: none

	Args        map[string]string // template variables
	Compression string            // gzip, zstd, lz4, xz, none; "" means gzip
	Squashfs    Squashfs          // more about the file system of the image
	TempDir     string            // where to work; "" means $TMPDIR, else a directory on disk
	StepCache   string            // where steps are kept for later builds; "" means nowhere
	StepLimit   int64             // bytes that they may take; 0 is the default of the cache

	// Unlock, if not nil, returns the squashfs in the encrypted root partition of an
	// image that a stage begins with.
	Unlock func(im *image.Image) (*io.SectionReader, error)

	// Seal, if not nil, begins the encrypted container that holds the root file
	// system, and Message is its key, encrypted for a PEM file; nil for none.
	Seal    func(ctx context.Context, w io.WriterAt) (*luks.Writer, error)
	Message []byte
	// Catalog, if not nil, lists the packages in the image that f is, for its bill
	// of materials, which lies in clear beside an encrypted root. Without it there is
	// none.
	Catalog func(ctx context.Context, f *os.File) (*sbom.Inventory, error)
	// Attest, if not nil, puts what the image tells of its sources into an envelope
	// with a signature, and Sign signs the image when all else is in it. at is the
	// time of the build, if that is not now.
	Attest func(statement []byte) ([]byte, error)
	Sign   func(ctx context.Context, f *os.File, at time.Time) error
	// StripMetadata leaves out the definition and the labels beside the root.
	StripMetadata bool

	Owners  Owners
	Umask   uint32
	Version string   // of this program, for a label
	Env     []string // of the host

	Run Runner
	// Verify checks the signatures of a SIF file, by every key of require if
	// there are any, and returns the fingerprints of those who signed it. Nil
	// where there are no keys.
	Verify   func(ctx context.Context, path string, require []string) ([]string, error)
	Log      Log
	Progress func(Progress) // may be nil
	// Temporary, if not nil, gets the path of each temporary file or directory
	// that RemoveAbandoned is to remove if this process is killed.
	Temporary func(path string)
	Confirm   func(question string) bool // nil where nobody can answer
	Stdin     io.Reader
	Stdout    io.Writer
	Stderr    io.Writer
}

// getenv returns a variable of the host's environment.
func (o *Options) getenv(name string) string {
	for i := len(o.Env) - 1; i >= 0; i-- {
		if k, v, ok := strings.Cut(o.Env[i], "="); ok && k == name {
			return v
		}
	}
	return ""
}

func (o *Options) progress(phase string, bytes, total int64) {
	if o.Progress != nil {
		o.Progress(Progress{Phase: phase, Bytes: bytes, Total: total})
	}
}

func (o *Options) progressDone(phase string, bytes int64) {
	if o.Progress != nil {
		o.Progress(Progress{Phase: phase, Bytes: bytes, Done: true})
	}
}

// sectionNames are what Options.Sections may hold.
var sectionNames = []string{
	"all", "none", "help", "setup", "files", "labels", "environment", "pre", "post", "runscript", "test", "startscript",
}

// checkSections looks at the names in Options.Sections.
func checkSections(names []string) error {
	for _, n := range names {
		known := false
		for _, s := range sectionNames {
			known = known || s == n
		}
		if !known {
			return fmt.Errorf("unknown section %q: want one of %s", n, strings.Join(sectionNames, ", "))
		}
		if (n == "all" || n == "none") && len(names) > 1 {
			return fmt.Errorf("section %q cannot stand beside others", n)
		}
	}
	return nil
}

// ScriptError says that a script of the definition failed.
type ScriptError struct {
	Section string
	Err     error
}

func (e *ScriptError) Error() string { return fmt.Sprintf("%%%s failed: %v", e.Section, e.Err) }

// Unwrap returns the cause.
func (e *ScriptError) Unwrap() error { return e.Err }

// localImage is the definition of a build from an image at path.
func localImage(path string) (*deffile.Definition, error) { return oneLine("localimage", path) }

// oneLine is the definition of a build from an image alone.
func oneLine(agent, from string) (*deffile.Definition, error) {
	if strings.ContainsAny(from, "\n\\") || strings.TrimSpace(from) != from || strings.Contains(from, " #") || strings.Contains(from, "{{") {
		return nil, fmt.Errorf("cannot build from %q: it has blanks at its ends, braces, a backslash or a line feed", from)
	}
	return deffile.Parse("", []byte("bootstrap: "+agent+"\nfrom: "+from+"\n"), nil)
}
