package build

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"singularity/build/deffile"
	"singularity/linux/safepath"
)

// skeleton are the scripts that every image holds for runtimes other than ours.
//
//go:embed skeleton
var skeleton embed.FS

const (
	metaDir     = ".singularity.d"
	maxMetaSize = 4 << 20 // bytes of one file read from /.singularity.d
	labelPrefix = "org.label-schema."
	usagePrefix = labelPrefix + "usage.singularity."
	envHeader   = "#!/bin/sh\n# From the definition file.\n"
)

// links lead from the root of an image to its metadata.
var links = [][2]string{
	{"singularity", metaDir + "/runscript"},
	{".run", metaDir + "/actions/run"},
	{".exec", metaDir + "/actions/exec"},
	{".test", metaDir + "/actions/test"},
	{".shell", metaDir + "/actions/shell"},
	{"environment", metaDir + "/env/90-environment.sh"},
}

// points are what runtimes mount over; made where they are missing.
var points = []struct {
	name string
	mode uint32 // permissions; a directory unless file
	file bool
}{
	{"dev", 0o755, false}, {"proc", 0o755, false}, {"root", 0o700, false}, {"var", 0o755, false}, {"var/tmp", 0o1777, false},
	{"tmp", 0o1777, false}, {"etc", 0o755, false}, {"sys", 0o755, false}, {"home", 0o755, false},
	{"etc/hosts", 0o644, true}, {"etc/resolv.conf", 0o644, true},
}

// layout makes what every image has: the directories of /.singularity.d, the
// scripts of the skeleton, the links and the mount points.
func (b *builder) layout() error {
	for _, p := range points {
		if err := makePoint(b.root, p.name, p.mode, p.file); err != nil {
			return fmt.Errorf("cannot make %q in the image: %w", p.name, err)
		}
	}
	meta, err := realDir(b.root, metaDir)
	if err != nil {
		return err
	}
	defer meta.Close()
	libs, err := realDir(meta, "libs")
	if err != nil {
		return err
	}
	libs.Close()
	for name, perm := range map[string]uint32{"actions": 0o755, "env": 0o644} {
		if err := copySkeleton(meta, name, perm); err != nil {
			return err
		}
	}
	env, err := realDir(meta, "env")
	if err != nil {
		return err
	}
	defer env.Close()
	if _, err := readFile(env, "90-environment.sh"); errors.Is(err, fs.ErrNotExist) {
		if err := replace(env, "90-environment.sh", []byte(envHeader), 0o644); err != nil {
			return err
		}
	}
	for _, l := range links {
		// A file of the base system that has the name already is left alone.
		err := unix.Symlinkat(l[1], int(b.root.Fd()), l[0])
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return &fs.PathError{Op: "symlink", Path: "/" + l[0], Err: err}
		}
	}
	return nil
}

func copySkeleton(meta *os.File, name string, perm uint32) error {
	dir, err := realDir(meta, name)
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := skeleton.ReadDir("skeleton/" + name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		data, err := skeleton.ReadFile("skeleton/" + name + "/" + e.Name())
		if err != nil {
			return err
		}
		if err := replace(dir, e.Name(), data, perm); err != nil {
			return err
		}
	}
	return nil
}

// makePoint makes an empty directory or file unless there is something already,
// be it a link that leads nowhere.
func makePoint(root *os.File, name string, mode uint32, file bool) error {
	dir, err := safepath.Open(root, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	var st unix.Stat_t
	if unix.Fstatat(int(dir.Fd()), path.Base(name), &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return nil
	}
	if file {
		return writeNew(dir, path.Base(name), nil, mode)
	}
	if err := unix.Mkdirat(int(dir.Fd()), path.Base(name), 0o755); err != nil {
		return err
	}
	return unix.Fchmodat(int(dir.Fd()), path.Base(name), mode, 0)
}

// realDir opens the directory name in dir, and makes it if it is missing or
// something else.
//
// Security: a link in its place would lead the files written there to another
// part of the image.
func realDir(dir *os.File, name string) (*os.File, error) {
	err := unix.Mkdirat(int(dir.Fd()), name, 0o755)
	if errors.Is(err, unix.EEXIST) {
		var f *os.File
		if f, err = openAt(dir, name, unix.O_DIRECTORY); err == nil {
			return f, nil
		}
		if err = unlink(dir, name); err == nil {
			err = unix.Mkdirat(int(dir.Fd()), name, 0o755)
		}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "mkdir", Path: path.Join(dir.Name(), name), Err: err}
	}
	f, err := openAt(dir, name, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return f, f.Chmod(0o755)
}

// replace writes a file in the open directory dir in place of what has its name.
func replace(dir *os.File, name string, data []byte, perm uint32) error {
	if err := unlink(dir, name); err != nil {
		return err
	}
	return writeNew(dir, name, data, perm)
}

// readFile reads a regular file of at most 4 MiB in the open directory dir. A
// link in its place counts as nothing, as replace takes it away.
func readFile(dir *os.File, name string) ([]byte, error) {
	f, err := openAt(dir, name, 0)
	if errors.Is(err, unix.ELOOP) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	return readBounded(f)
}

// readSmall reads a regular file of at most 4 MiB at a path in the image.
func readSmall(root *os.File, name string) ([]byte, error) {
	f, err := safepath.Open(root, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	return readBounded(f)
}

func readBounded(f *os.File) ([]byte, error) {
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("cannot read %q: not a regular file", f.Name())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxMetaSize+1))
	if err == nil && len(data) > maxMetaSize {
		err = fmt.Errorf("cannot read %q: it is larger than %d bytes", f.Name(), maxMetaSize)
	}
	return data, err
}

// metadata writes what the definition says about the image.
func (b *builder) metadata() error {
	meta, err := realDir(b.root, metaDir)
	if err != nil {
		return err
	}
	defer meta.Close()
	for _, step := range []func(*os.File) error{b.help, b.environment, b.scripts, b.definition, b.writeLabels} {
		if err := step(meta); err != nil {
			return fmt.Errorf("cannot write the metadata of the image: %w", err)
		}
	}
	if err := b.appMetadata(); err != nil {
		return err
	}
	b.inspect, err = b.inspectJSON(meta)
	return err
}

func (b *builder) help(meta *os.File) error {
	sec, ok := b.script("help")
	if !ok {
		return nil
	}
	if _, err := readFile(meta, "runscript.help"); err == nil && !b.o.Force {
		b.o.Log.Warning("The help of the base image stays; --force replaces it")
		return nil
	}
	b.o.Log.Info("Adding help info")
	return replace(meta, "runscript.help", []byte(sec.Text), 0o644)
}

func (b *builder) environment(meta *os.File) error {
	env, err := realDir(meta, "env")
	if err != nil {
		return err
	}
	defer env.Close()
	if sec, ok := b.script("environment"); ok {
		b.o.Log.Info("Adding environment to container")
		old, err := readFile(env, "90-environment.sh")
		if err != nil {
			return err
		}
		if err := replace(env, "90-environment.sh", append(old, sec.Text...), 0o644); err != nil {
			return err
		}
	}
	// %post may have left it unreadable to others.
	if f, err := openAt(env, "91-environment.sh", 0); err == nil {
		defer f.Close()
		return f.Chmod(0o644)
	}
	return nil
}

func (b *builder) scripts(meta *os.File) error {
	for _, s := range [][3]string{
		{"startscript", "startscript", "Adding startscript"},
		{"runscript", "runscript", "Adding runscript"},
		{"test", "test", "Adding testscript"},
	} {
		sec, ok := b.script(s[0])
		if !ok {
			continue
		}
		b.o.Log.Info(s[2])
		if err := replace(meta, s[1], []byte(scriptText(sec)), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// scriptText gives a section the first line that it needs to be run.
func scriptText(sec deffile.Section) string {
	if strings.HasPrefix(sec.Text, "#!") {
		return sec.Text
	}
	return strings.TrimRight("#!/bin/sh "+sec.Args, " ") + "\n\n" + sec.Text
}

// definition stores the text of the definition, and moves that of the base
// image to the history.
func (b *builder) definition(meta *os.File) error {
	old, err := readFile(meta, "Singularity")
	switch {
	case err == nil:
		history, err := realDir(meta, "bootstrap_history")
		if err != nil {
			return err
		}
		defer history.Close()
		for n := 0; ; n++ {
			err := writeNew(history, "Singularity"+strconv.Itoa(n), old, 0o644)
			if err == nil {
				break
			}
			if !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return replace(meta, "Singularity", b.def.Text, 0o644)
}

// writeLabels joins the labels of the base image, the automatic ones, those of
// the definition and those that %post wrote.
func (b *builder) writeLabels(meta *os.File) error {
	labels, err := baseLabels(meta)
	if err != nil {
		return err
	}
	b.o.Log.Info("Adding labels")
	_, helpErr := readFile(meta, "runscript.help")
	for k, v := range b.automaticLabels(helpErr == nil) {
		labels[k] = v
	}
	var own []deffile.Label
	if sec, ok := b.script("labels"); ok {
		own = deffile.Labels(sec.Text)
	}
	for _, k := range sortedKeys(b.labels) {
		own = append(own, deffile.Label{Key: k, Value: b.labels[k]})
	}
	for _, l := range own {
		if old, ok := labels[l.Key]; ok && old != l.Value && !b.o.Force {
			b.o.Log.Warning(fmt.Sprintf("Label %q is %q already and stays so; --force replaces it", l.Key, old))
			continue
		}
		labels[l.Key] = l.Value
	}
	b.labels = labels
	data, err := json.MarshalIndent(labels, "", "\t")
	if err != nil {
		return err
	}
	return replace(meta, "labels.json", append(data, '\n'), 0o644)
}

// baseLabels reads the labels of the base image, without those that tell of
// its definition.
func baseLabels(meta *os.File) (map[string]string, error) {
	labels := map[string]string{}
	data, err := readFile(meta, "labels.json")
	if errors.Is(err, fs.ErrNotExist) {
		return labels, nil
	}
	if err != nil {
		return nil, err
	}
	var values map[string]any
	if err := json.Unmarshal(data, &values); err != nil {
		return nil, fmt.Errorf("labels.json of the base image: %w", err)
	}
	for k, v := range values {
		if !strings.HasPrefix(k, usagePrefix+"deffile.") && v != nil {
			labels[k] = fmt.Sprint(v)
		}
	}
	return labels, nil
}

func (b *builder) automaticLabels(help bool) map[string]string {
	now := time.Now()
	if t, ok := b.o.sourceDate(); ok {
		now = time.Unix(t, 0).UTC()
	}
	labels := map[string]string{
		labelPrefix + "schema-version": "1.0",
		labelPrefix + "build-date":     buildDate(now),
		labelPrefix + "build-arch":     b.arch,
		usagePrefix + "version":        b.o.Version,
	}
	if help {
		labels[labelPrefix+"usage"] = "/" + metaDir + "/runscript.help"
		labels[usagePrefix+"runscript.help"] = "/" + metaDir + "/runscript.help"
	}
	for _, k := range b.stage.Header {
		labels[usagePrefix+"deffile."+k.Name] = k.Value
	}
	return labels
}

// buildDate writes a time as other builders do, without leading zeros. A layout
// for time.Format cannot say this: "_2" in it pads.
func buildDate(t time.Time) string {
	return fmt.Sprintf("%s_%d_%s_%d_%d:%d:%d_%s", t.Weekday(), t.Day(), t.Month(), t.Year(), t.Hour(), t.Minute(), t.Second(), t.Format("MST"))
}

// sourceDate returns SOURCE_DATE_EPOCH, seconds since 1970.
func (o *Options) sourceDate() (int64, bool) {
	t, err := strconv.ParseInt(o.getenv("SOURCE_DATE_EPOCH"), 10, 64)
	return t, err == nil && t >= 0 && t <= 1<<32-1
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
