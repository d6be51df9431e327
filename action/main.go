package action

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"singularity/conf"
	"singularity/container"
	"singularity/container/hot"
	"singularity/image"
	"singularity/linux/entry"
	"singularity/linux/signals"
	"singularity/plan"
)

// VersionLine returns the output of --version.
func VersionLine() string { return conf.PackageName + " version " + conf.Version + "\n" }

// Main runs the singularity program with argv and returns its exit status. It
// starts containers from local images itself; everything else it hands to
// singularity-cli, which links much more and so starts slower.
func Main(argv []string) int {
	if len(argv) == 2 && argv[1] == "--version" {
		os.Stdout.WriteString(VersionLine())
		return 0
	}
	if status, served := Serve(argv, nil); served {
		return status
	}
	log := NewLog()
	code, err := run(argv, log)
	if err != nil {
		return Report(log, err)
	}
	return code
}

// Serve lives the life of a server of mounts, or of a cleaner, if argv asks
// for one, and returns its exit status. Every program that starts containers calls it first, since it
// starts servers from its own file. unlocked opens an encrypted partition with
// the secret of Extensions.Unlock; it may be nil in a program that has none.
func Serve(argv []string, unlocked func(format image.Format, r *io.SectionReader, secret []byte) (*io.SectionReader, error)) (status int, served bool) {
	switch {
	case len(argv) == 2 && argv[1] == container.ServerName:
		return container.ServeMain(func(format int, r *io.SectionReader, secret []byte) (any, error) {
			if !image.Format(format).Encrypted() || unlocked == nil {
				return openServed(format, r, nil)
			}
			plain, err := unlocked(image.Format(format), r, secret)
			if err != nil {
				return nil, err
			}
			return openServed(int(image.FormatSquashfs), plain, nil)
		}), true
	case len(argv) == 3 && argv[1] == cleanerName:
		return cleanerMain(argv[2]), true
	case len(argv) > 2 && argv[1] == container.HolderName:
		return container.HoldMain(argv[2:], openServed), true
	case len(argv) > 2 && argv[1] == hot.WriterName:
		return hot.WriterMain(argv[2:], func(format int, r *io.SectionReader) (any, error) { return openServed(format, r, nil) }), true
	}
	return 0, false
}

func run(argv []string, log *Log) (int, error) {
	var v Invocation
	verb, err := Parse(&v, argv, log)
	if err != nil {
		return 0, err
	}
	if v.Version {
		os.Stdout.WriteString(VersionLine())
		return 0, nil
	}
	if verb != nil && !v.Help {
		// Nothing is fetched for a start that is refused then.
		if _, err := plan.Native(&v.Options, false); err != nil {
			return 0, err
		}
	}
	name, joins := strings.CutPrefix(v.Image, "instance://")
	if verb != nil && !v.Help && Remote(v.Image) {
		if path := v.recentImage(); path != "" {
			argv = v.WithImage(argv, path)
		}
	}
	switch {
	case verb == nil || v.Help || !joins && needsMore(&v, verb):
		return 0, handOver(argv)
	case joins && verb.Set&Instances != 0:
		return 0, Fatal(errors.New("cannot start an instance from an instance"), "name an image")
	}
	if done, err := v.EnvFiles(nil); err != nil || !done {
		if err == nil {
			err = handOver(argv)
		}
		return 0, err
	}
	if joins {
		for _, note := range v.Notes {
			log.Warning(note)
		}
		return join(v.Verb, &v.Options, name, v.Args, log)
	}
	return Start(&v, argv, Extensions{}, log)
}

// needsMore tells whether a start needs what only singularity-cli links: an
// image to fetch, device files to read, networks, control groups, which instances get for
// their statistics even without limits.
func needsMore(v *Invocation, verb *Verb) bool {
	return Remote(v.Image) || NeedsDevices(&v.Options) || v.Limited() || v.Networked() || verb.Set&Instances != 0
}

// Parse reads a command line into v and returns its verb; nil if that is none
// that starts a container.
func Parse(v *Invocation, argv []string, log *Log) (*Verb, error) {
	rest, err := ParseGlobal(v, argv[min(1, len(argv)):], os.Getenv)
	if err != nil {
		return nil, err
	}
	v.SetLog(log)
	if v.Help || v.Version || len(rest) == 0 {
		return nil, nil
	}
	name := rest[0]
	if name == "instance" && len(rest) > 1 {
		rest = rest[1:]
		name += " " + rest[0]
	}
	verb := LookupVerb(name)
	if verb == nil {
		return nil, nil
	}
	return verb, ParseVerb(v, verb, rest[1:], os.Getenv)
}

// SetLog sets log as the global options say and leaves word of them in the
// environment, for the programs that carry on.
func (v *Invocation) SetLog(log *Log) {
	switch {
	case v.Debug:
		log.Level = DebugLevel
		os.Setenv("SINGULARITY_DEBUG", "1")
	case v.Verbose:
		log.Level = VerboseLevel
	case v.Quiet:
		log.Level = QuietLevel
	case v.Silent:
		log.Level = SilentLevel
	case !v.NoColor:
		return
	}
	n := int(log.Level)
	if v.NoColor {
		log.Color = false
		if n < 0 {
			n -= 90
		} else {
			n += 90
		}
	}
	os.Setenv("SINGULARITY_MESSAGELEVEL", strconv.Itoa(n))
}

// schemes are the URI schemes that a colon alone makes, without two slashes.
var schemes = [...]string{"instance", "library", "docker", "docker-daemon", "docker-archive",
	"oci", "oci-archive", "oras", "shub", "http", "https"}

// Scheme returns the scheme of an image reference, or "" for a path. A path may
// have a colon in it.
func Scheme(ref string) string {
	name, rest, ok := strings.Cut(ref, ":")
	if !ok {
		return ""
	}
	for _, s := range schemes {
		if s == name {
			return name
		}
	}
	if strings.HasPrefix(rest, "//") && isScheme(name) {
		return name
	}
	return ""
}

func isScheme(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(s[i]))) {
			return false
		}
	}
	return s != ""
}

// handOver becomes singularity-cli with the same command line.
func handOver(argv []string) error {
	return Become("singularity-cli", append([]string{"singularity"}, argv[min(1, len(argv)):]...))
}

// Become replaces the process by another program of ours. It returns only if
// that fails.
//
// Security: a program of ours is looked for beside the running one and in the
// place that the build fixed, never by PATH, which the caller controls.
func Become(name string, argv []string) error {
	places := ProgramPaths(name)
	if st := entry.Read(); st.Masked {
		runtime.LockOSThread()
		signals.SetMask(st.Mask)
	}
	for _, path := range places {
		err := syscall.Exec(path, argv, os.Environ())
		if err != syscall.ENOENT {
			return Fatal(errors.New("cannot run "+path+": "+err.Error()), "")
		}
	}
	return Fatal(errors.New("cannot find the program "+name+": it is neither "+strings.Join(places, " nor ")),
		"install singularity again: its programs belong together")
}

// ProgramPaths returns where the program of ours called name may be, the most
// likely place first.
func ProgramPaths(name string) []string {
	installed := conf.Prefix + "/libexec/singularity/bin/" + name
	if name == "singularity" {
		installed = conf.Prefix + "/bin/" + name
	}
	exe, err := os.Executable()
	if err != nil {
		return []string{installed}
	}
	return []string{exe[:strings.LastIndexByte(exe, '/')+1] + name, installed}
}
