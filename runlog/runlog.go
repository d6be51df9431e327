// Package runlog keeps records of containers that run: which image, where, in
// which job, by whom, from when to when.
//
// A site that wants to know which running jobs an advisory touches makes a spool
// directory; each start leaves one small file in it, and another program ships
// them (singularity runs ship). Nothing waits for that: a record that cannot be
// written is no reason not to run.
//
// Trust: the spool is a directory of root's with mode 1733, so that everybody can
// leave files and nobody can list, change or remove those of others. Whose run a
// record tells of is the owner of its file, never what it says; what else it says
// is the word of that user, who could as well run something without us. Read
// takes regular files of one name and bounded size only.
package runlog

import (
	"cmp"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Record is one run of a container.
type Record struct {
	ID    string    `json:"id"` // unique, of the spool
	Start time.Time `json:"start"`
	End   time.Time `json:"end,omitzero"`
	Host  string    `json:"host"`
	UID   uint32    `json:"uid"` // set by Read
	Job   string    `json:"job,omitempty"`
	Verb  string    `json:"verb"`
	// Image is its path, Digest the SHA-256 of the file ("sha256:..."), if it was
	// known without reading it. The others tell whether what lies there is still
	// the same.
	Image  string `json:"image"`
	Digest string `json:"digest,omitempty"`
	Dev    uint64 `json:"dev"`
	Ino    uint64 `json:"ino"`
	Size   int64  `json:"size"`
	MTime  int64  `json:"mtime"` // nanoseconds
	// PID and its start (clock ticks since boot) tell whether it still runs.
	PID   int    `json:"pid"`
	Ticks uint64 `json:"ticks"`
}

// Bounds of a spool.
const (
	maxRecord  = 8 << 10 // bytes of a file
	maxRecords = 100_000 // files that Read takes
	suffix     = ".run"
	endSuffix  = ".end"
	digits     = "0123456789abcdef"
	idSize     = 32 // digits
)

// jobVariables name the job of a batch system, the most specific first.
var jobVariables = [...]string{"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "JOB_ID", "OAR_JOB_ID", "COBALT_JOBID"}

// Job is the name of the batch job that env tells of, "" for none.
func Job(env func(string) string) string {
	for _, k := range jobVariables {
		if v := env(k); v != "" && len(v) <= 128 {
			return k[:strings.IndexByte(k, '_')] + ":" + v
		}
	}
	return ""
}

// Describe fills in what the open image f is.
func (r *Record) Describe(f *os.File, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	r.Image, r.Dev, r.Ino, r.Size, r.MTime = path, st.Dev, st.Ino, st.Size, st.Mtim.Nano()
	return nil
}

// Entry is a record that was written and has not ended.
type Entry struct{ path string }

// Write leaves r in the directory spool. Its ID and that of this process are
// set here.
func Write(spool string, r Record) (*Entry, error) {
	var id [16]byte
	if _, err := unix.Getrandom(id[:], 0); err != nil {
		return nil, err
	}
	r.ID, r.PID = hex(id[:]), os.Getpid()
	var err error
	if r.Ticks, err = ticks(r.PID); err != nil {
		return nil, err
	}
	b := r.text()
	if len(b) > maxRecord {
		return nil, errors.New("the record is too large")
	}
	e := &Entry{filepath.Join(spool, r.ID+suffix)}
	return e, create(e.path, b)
}

// A file of the spool has one line for each field, KEY="VALUE" with the escapes
// of Go. That needs no encoder, of which every start would pay the initialisation.

func (r *Record) fields() [11]struct {
	key string
	at  any
} {
	return [...]struct {
		key string
		at  any
	}{{"id", &r.ID}, {"start", &r.Start}, {"host", &r.Host}, {"job", &r.Job}, {"verb", &r.Verb}, {"image", &r.Image}, {"digest", &r.Digest},
		{"dev", &r.Dev}, {"ino", &r.Ino}, {"size", &r.Size}, {"mtime", &r.MTime}}
}

func (r *Record) text() []byte {
	var b []byte
	line := func(key, value string) {
		b = append(append(b, key...), '=')
		b = append(strconv.AppendQuote(b, value), '\n')
	}
	for _, f := range r.fields() {
		switch v := f.at.(type) {
		case *string:
			line(f.key, *v)
		case *time.Time:
			line(f.key, v.UTC().Format(time.RFC3339Nano))
		case *uint64:
			line(f.key, strconv.FormatUint(*v, 10))
		case *int64:
			line(f.key, strconv.FormatInt(*v, 10))
		}
	}
	line("pid", strconv.Itoa(r.PID))
	line("ticks", strconv.FormatUint(r.Ticks, 10))
	return b
}

func (r *Record) parse(text string) error {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		key, quoted, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		value, err := strconv.Unquote(quoted)
		if _, twice := values[key]; !ok || err != nil || twice {
			return syscall.EINVAL
		}
		values[key] = value
	}
	var bad error
	for _, f := range r.fields() {
		var err error
		switch v := f.at.(type) {
		case *string:
			*v = values[f.key]
		case *time.Time:
			*v, err = time.Parse(time.RFC3339Nano, values[f.key])
		case *uint64:
			*v, err = strconv.ParseUint(values[f.key], 10, 64)
		case *int64:
			*v, err = strconv.ParseInt(values[f.key], 10, 64)
		}
		bad = errors.Join(bad, err)
	}
	pid, err := strconv.ParseInt(values["pid"], 10, 32)
	ticks, err2 := strconv.ParseUint(values["ticks"], 10, 64)
	r.PID, r.Ticks = int(pid), ticks
	return errors.Join(bad, err, err2)
}

// hex writes b in hexadecimal digits.
func hex(b []byte) string {
	out := make([]byte, 0, 2*len(b))
	for _, c := range b {
		out = append(out, digits[c>>4], digits[c&15])
	}
	return string(out)
}

// End notes that the run is over. What it returns is for those who care.
func (e *Entry) End(at time.Time) error {
	return create(strings.TrimSuffix(e.path, suffix)+endSuffix, []byte(at.UTC().Format(time.RFC3339Nano)))
}

func create(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// Read lists the records in spool, the oldest first, at most a hundred thousand:
// more are for the next time. Files that are none are passed over and counted. A
// run whose process is gone without a note has ended now.
func Read(spool string) (list []Record, bad int, err error) {
	dir, err := os.Open(spool)
	if err != nil {
		return nil, 0, err
	}
	defer dir.Close()
	for len(list) < maxRecords {
		names, err := dir.Readdirnames(1024)
		for _, n := range names {
			id, ok := strings.CutSuffix(n, suffix)
			if !ok || len(list) == maxRecords {
				continue
			}
			r, err := readOne(dir, id)
			if err != nil {
				bad++
				continue
			}
			list = append(list, r)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, bad, err
		}
	}
	slices.SortFunc(list, func(a, b Record) int { return cmp.Or(a.Start.Compare(b.Start), strings.Compare(a.ID, b.ID)) })
	return list, bad, nil
}

// Sweep removes files with the name of a record that are older than before and no
// record: a start could not finish them, or somebody left them. It tells how many
// they were.
func Sweep(spool string, before time.Time) (n int, err error) {
	dir, err := os.Open(spool)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			if sweepOne(dir, name, before) {
				n++
			}
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

func sweepOne(dir *os.File, name string, before time.Time) bool {
	id, record := strings.CutSuffix(name, suffix)
	if !record {
		var end bool
		if id, end = strings.CutSuffix(name, endSuffix); !end {
			return false
		}
	}
	if len(id) != idSize || strings.Trim(id, digits) != "" {
		return false
	}
	var st unix.Stat_t
	if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR || time.Unix(st.Mtim.Unix()).After(before) {
		return false
	}
	if _, err := readOne(dir, id); err == nil { // of the end, the record that it is about
		return false
	}
	return unix.Unlinkat(int(dir.Fd()), name, 0) == nil
}

func readOne(dir *os.File, id string) (Record, error) {
	var r Record
	b, owner, err := readFile(dir, id+suffix)
	if err != nil {
		return r, err
	}
	if err := r.parse(string(b)); err != nil {
		return r, err
	}
	if r.ID != id || !plain(r.Host) || !plain(r.Job) || !plain(r.Verb) || !plain(r.Digest) || len(r.Image) > 4096 || !plain(strings.ReplaceAll(r.Image, " ", "")) {
		return r, errors.New("not a record")
	}
	r.UID, r.End = owner, time.Time{}
	if b, by, err := readFile(dir, id+endSuffix); err == nil && by == owner {
		if t, err := time.Parse(time.RFC3339Nano, string(b)); err == nil {
			r.End = t
		}
	}
	if r.End.IsZero() && !alive(r) {
		r.End = time.Now().UTC()
	}
	return r, nil
}

// plain tells whether s is printable ASCII without spaces, or a path of letters.
func plain(s string) bool {
	return len(s) <= 4096 && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 || c == 0xfffd })
}

// readFile reads a small regular file in dir, and tells who owns it.
func readFile(dir *os.File, name string) ([]byte, uint32, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, 0, err
	}
	// A second name would let somebody put another user's file here.
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || st.Size > maxRecord {
		return nil, 0, errors.New("not a record")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRecord))
	return b, st.Uid, err
}

// alive tells whether the process of r still runs on this host. On another host
// nobody can say: then it counts as running.
func alive(r Record) bool {
	if h, err := os.Hostname(); err != nil || h != r.Host {
		return true
	}
	t, err := ticks(r.PID)
	return err == nil && t == r.Ticks
}

// ticks is when the living process pid began, in clock ticks since the start of the
// system.
func ticks(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return 0, syscall.EINVAL
	}
	if f[0] == "Z" || f[0] == "X" { // dead, and nobody has asked how it ended
		return 0, syscall.ESRCH
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// Remove takes a record that was shipped out of spool.
func Remove(spool string, r Record) error {
	if r.ID == "" || strings.ContainsAny(r.ID, "/.") {
		return syscall.EINVAL
	}
	err := os.Remove(filepath.Join(spool, r.ID+endSuffix))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(os.Remove(filepath.Join(spool, r.ID+suffix)), err)
}

// Same tells whether the file that f is, is the one that r was started from.
func (r *Record) Same(f *os.File) bool {
	var now Record
	return now.Describe(f, r.Image) == nil && now.Dev == r.Dev && now.Ino == r.Ino && now.Size == r.Size && now.MTime == r.MTime
}
