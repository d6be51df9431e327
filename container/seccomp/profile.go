package seccomp

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/conf/jsonread"
)

// MaxProfile bounds the text of a profile, in bytes.
const MaxProfile = 1 << 20

const (
	maxRules      = 4096
	maxNames      = 4096
	maxConditions = 16
	maxErrno      = 4095 // the largest error number that the kernel returns
)

// Profile is what a person allows a process to do, as profiles of Docker and
// the OCI runtime specification say it.
type Profile struct {
	fallback action // for what no rule matches
	maps     []archMap
	rules    []rule
}

// action is what the kernel does: a SECCOMP_RET_ value with its data.
type action uint32

// archMap names the calling conventions that come with one of a machine.
type archMap struct {
	arch string // SCMP_ARCH_...
	sub  []string
}

// rule gives calls an action, where all its conditions hold.
type rule struct {
	names              []string
	action             action
	args               []condition
	includes, excludes filter
}

// condition compares an argument.
type condition struct {
	index         uint32
	value, second uint64
	op            string // without SCMP_CMP_
}

// filter chooses processes. An empty list chooses all.
type filter struct {
	arches, caps []string
	kernel       string // "major.minor"
}

// Parse reads a profile. Members that it does not know are left aside, as
// profiles carry comments; a value it does not know is an error, since a rule
// misread in silence is a rule that does not hold.
func Parse(text string) (*Profile, error) {
	if len(text) > MaxProfile {
		return nil, errors.New("profile is larger than " + strconv.Itoa(MaxProfile) + " bytes")
	}
	d := &decoder{r: jsonread.New(text), p: new(Profile)}
	d.profile()
	if err := d.r.End(); err != nil {
		return nil, err
	}
	return d.p, nil
}

type decoder struct {
	r *jsonread.Reader
	p *Profile
}

func (d *decoder) profile() {
	var name string
	errno := uint32(unix.EPERM)
	var arches []string
	d.r.Object(func(member string) {
		switch member {
		case "defaultAction":
			name = d.r.Text()
		case "defaultErrnoRet":
			errno = d.errno()
		case "architectures":
			arches = d.r.Strings(maxConditions)
		case "archMap":
			d.list(maxConditions, d.archMap)
		case "syscalls":
			d.list(maxRules, d.rule)
		case "listenerPath":
			d.r.Fail("listenerPath is not supported: no agent can be asked about calls")
		default:
			d.r.Skip()
		}
	})
	switch {
	case name == "":
		d.r.Fail("profile has no defaultAction")
	case len(arches) > 0 && len(d.p.maps) > 0:
		d.r.Fail("profile has both architectures and archMap")
	}
	for _, a := range arches {
		d.p.maps = append(d.p.maps, archMap{arch: a})
	}
	// A list without links: each calling convention comes with any other.
	for i := range d.p.maps[:len(arches)] {
		d.p.maps[i].sub = arches
	}
	d.p.fallback = d.action(name, errno)
}

// list reads an array of at most limit elements; null is an empty one.
func (d *decoder) list(limit int, element func()) {
	if d.r.Null() {
		return
	}
	n := 0
	d.r.Array(func() {
		if n++; n > limit {
			d.r.Fail("more than " + strconv.Itoa(limit) + " elements")
			return
		}
		element()
	})
}

// errno reads an error number; null is the usual one.
func (d *decoder) errno() uint32 {
	if d.r.Null() {
		return uint32(unix.EPERM)
	}
	return uint32(d.r.Uint(maxErrno))
}

func (d *decoder) archMap() {
	var m archMap
	d.r.Object(func(member string) {
		switch member {
		case "architecture":
			m.arch = d.r.Text()
		case "subArchitectures":
			m.sub = d.r.Strings(maxConditions)
		default:
			d.r.Skip()
		}
	})
	d.p.maps = append(d.p.maps, m)
}

func (d *decoder) rule() {
	var r rule
	var act string
	errno := uint32(unix.EPERM)
	d.r.Object(func(member string) {
		switch member {
		case "name":
			r.names = append(r.names, d.r.Text())
		case "names":
			r.names = append(r.names, d.r.Strings(maxNames)...)
		case "action":
			act = d.r.Text()
		case "errnoRet":
			errno = d.errno()
		case "args":
			d.list(maxConditions, func() { r.args = append(r.args, d.condition()) })
		case "includes":
			r.includes = d.filter()
		case "excludes":
			r.excludes = d.filter()
		default:
			d.r.Skip()
		}
	})
	if len(r.names) == 0 {
		d.r.Fail("rule names no system call")
	}
	r.action = d.action(act, errno)
	d.p.rules = append(d.p.rules, r)
}

func (d *decoder) filter() (f filter) {
	if d.r.Null() {
		return f
	}
	d.r.Object(func(member string) {
		switch member {
		case "arches":
			f.arches = d.r.Strings(maxNames)
		case "caps":
			f.caps = d.r.Strings(maxNames)
		case "minKernel":
			if f.kernel = d.r.Text(); kernelNumber(f.kernel) < 0 {
				d.r.Fail("minKernel is no kernel version: " + strconv.Quote(f.kernel))
			}
		default:
			d.r.Fail("unknown kind of condition " + strconv.Quote(member))
		}
	})
	return f
}

func (d *decoder) condition() (c condition) {
	d.r.Object(func(member string) {
		switch member {
		case "index":
			c.index = uint32(d.r.Uint(5))
		case "value":
			c.value = d.r.Uint(math.MaxUint64)
		case "valueTwo":
			c.second = d.r.Uint(math.MaxUint64)
		case "op":
			c.op = strings.TrimPrefix(d.r.Text(), "SCMP_CMP_")
		default:
			d.r.Skip()
		}
	})
	switch c.op {
	case "EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ":
	default:
		d.r.Fail("unknown comparison " + strconv.Quote(c.op))
	}
	return c
}

func (d *decoder) action(name string, errno uint32) action {
	switch name {
	case "SCMP_ACT_ALLOW":
		return unix.SECCOMP_RET_ALLOW
	case "SCMP_ACT_LOG":
		return unix.SECCOMP_RET_LOG
	case "SCMP_ACT_ERRNO":
		return action(unix.SECCOMP_RET_ERRNO | errno)
	case "SCMP_ACT_TRACE":
		return action(unix.SECCOMP_RET_TRACE | errno)
	case "SCMP_ACT_TRAP":
		return unix.SECCOMP_RET_TRAP
	case "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD":
		return unix.SECCOMP_RET_KILL_THREAD
	case "SCMP_ACT_KILL_PROCESS":
		return unix.SECCOMP_RET_KILL_PROCESS
	case "SCMP_ACT_NOTIFY":
		d.r.Fail("SCMP_ACT_NOTIFY is not supported: no agent can be asked about calls")
	default:
		d.r.Fail("unknown action " + strconv.Quote(name))
	}
	return unix.SECCOMP_RET_KILL_PROCESS
}

// strictness orders actions as the kernel does: the lowest wins.
func (a action) strictness() int32 { return int32(a & unix.SECCOMP_RET_ACTION_FULL) }

// Target is the process that a profile is compiled for.
type Target struct {
	Arch   string            // GOARCH of the machine
	Kernel string            // its release, "6.1.0-5-amd64"
	HasCap func(string) bool // tells whether the process will have CAP_...
}

// applies tells whether rule r is meant for t.
func (r *rule) applies(t *Target) bool {
	in, ex := &r.includes, &r.excludes
	if len(in.arches) > 0 && !contains(in.arches, t.Arch) || contains(ex.arches, t.Arch) {
		return false
	}
	if in.kernel != "" && kernelNumber(t.Kernel) < kernelNumber(in.kernel) || ex.kernel != "" && kernelNumber(t.Kernel) >= kernelNumber(ex.kernel) {
		return false
	}
	for _, c := range in.caps {
		if !t.HasCap(c) {
			return false
		}
	}
	for _, c := range ex.caps {
		if t.HasCap(c) {
			return false
		}
	}
	return true
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// kernelNumber makes "6.1.0-5-amd64" a number that can be compared, or -1.
func kernelNumber(release string) int {
	major, rest, ok := strings.Cut(release, ".")
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	a, err := strconv.ParseUint(major, 10, 16)
	b, err2 := strconv.ParseUint(rest[:end], 10, 16)
	if !ok || err != nil || err2 != nil {
		return -1
	}
	return int(a)<<16 | int(b)
}
