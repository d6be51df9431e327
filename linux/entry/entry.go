//go:build !starter

// Package entry runs a few instructions before the Go runtime starts, while
// the process still has a single thread, because a user namespace can only be
// entered then.
//
// On amd64 the program singularity is linked with
//
//	-ldflags "-E singularity_entry"
//
// so that the kernel starts it at singularity_entry (entry_amd64.s) and not at
// the runtime's entry point. The stub does three things.
//
// It notes the limit of open files, which the runtime raises.
//
// If the first word behind the global options is exec, run, shell or test, it
// blocks the signals that can be passed on, so that every thread of the runtime
// inherits that: the process reads them from a signalfd then, which saves two
// thread switches per signal that os/signal would need.
//
// Where the command line is one that certainly starts a container from a
// directory as an ordinary user, it leaves the user namespace. It must decide
// before Go runs and cannot undo it: inside the new namespace a setuid program
// loses its bit. So it unshares only if all of this holds:
//
//   - the real user id is not 0 and AT_SECURE is 0;
//   - the caller is in at most 256 groups;
//   - no variable begins with SINGULARITY_ or APPTAINER_;
//   - the words up to the image are options of the list below;
//   - the image is a directory, and its name holds no colon;
//   - the setuid helper is not installed.
//
// The setuid helper has a stub of its own, starter_entry (suid_amd64.s), which
// takes the caller's environment and descriptors away; Scrubbed tells.
//
// In every other case the process goes on as a normal one, which costs a fork
// later and nothing else. The same holds for a program linked without the
// flag, and for other processors: Present tells.
package entry

// State is what the stub left behind.
type State struct {
	// Unshared tells that the process is alone in a new user namespace that
	// has no id maps yet.
	Unshared bool
	// UID and GID are the real ids from before the unshare. Valid only if
	// Unshared, since afterwards the kernel reports the overflow ids.
	UID, GID int
	// Groups are the supplementary groups from before the unshare. Valid only
	// if Unshared.
	Groups []int
	// Masked tells that the signals of Blocked are blocked in all threads,
	// but for those that the Go runtime unblocks (signals.Unblocked).
	// Mask is what was blocked before, for the program that is started.
	Masked bool
	Mask   uint64
	// Files is the soft and the hard limit of open files that the process
	// was started with; both are 0 if not known.
	Files [2]uint64
}

// helper is the path of the setuid helper, "" for none; the Makefile sets it.
var helper string

// The stub writes these; see entry_amd64.s.
var (
	present   uint64
	unshared  uint64 // 1 after a successful unshare
	savedUID  uint64
	savedGID  uint64
	fileLimit [2]uint64
	groups    [256]uint32 // room that the stub knows of
	groupsLen uint64
	masked    uint64
	savedMask uint64
	blocked   uint64 = Blocked
)

// Blocked is the set of signals that the stub blocks, bit n-1 for signal n: all
// but those that cannot be blocked (9, 19), that report a fault (4, 5, 6, 7, 8,
// 11, 31) or a broken pipe (13), and those that the Go runtime or the C library
// uses itself (23, 27, 32, 33, 34).
const Blocked = ^uint64(1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<12 | 1<<18 | 1<<22 | 1<<26 | 1<<30 | 1<<31 | 1<<32 | 1<<33)

// Present tells whether the stub ran.
func Present() bool { return present == 1 }

// Read returns what the stub left behind.
func Read() State {
	st := State{Unshared: unshared == 1, UID: int(savedUID), GID: int(savedGID), Files: fileLimit, Masked: masked == 1, Mask: savedMask}
	for _, g := range groups[:min(groupsLen, uint64(len(groups)))] {
		st.Groups = append(st.Groups, int(g))
	}
	return st
}

// The stub's word lists: a flag byte, the word, a NUL; a zero flag ends a
// list. An option that takes a value may also be joined to it by "=".
const (
	flagPlain  = "\x01" // an option without a value
	flagValue  = "\x02" // an option whose value is the next word
	flagVerb   = "\x04" // a verb
	flagPrefix = "\x08" // a variable name's beginning
)

var (
	globalWords = flagPlain + "-q\x00" + flagPlain + "-s\x00" + flagPlain + "-v\x00" + flagPlain + "-d\x00" +
		flagPlain + "--quiet\x00" + flagPlain + "--silent\x00" + flagPlain + "--verbose\x00" + flagPlain + "--debug\x00" +
		flagPlain + "--nocolor\x00" +
		flagVerb + "exec\x00" + flagVerb + "run\x00" + flagVerb + "shell\x00" + flagVerb + "test\x00" + "\x00"
	optionWords = flagPlain + "-e\x00" + flagPlain + "--cleanenv\x00" + flagPlain + "--no-home\x00" + flagPlain + "-u\x00" +
		flagPlain + "--userns\x00" + flagPlain + "--no-eval\x00" + flagPlain + "--no-umask\x00" +
		flagValue + "-B\x00" + flagValue + "--bind\x00" + flagValue + "--mount\x00" + flagValue + "-H\x00" + flagValue + "--home\x00" +
		flagValue + "--env\x00" + flagValue + "--pwd\x00" + flagValue + "--cwd\x00" + flagValue + "--no-mount\x00" + "\x00"
	envWords = flagPrefix + "SINGULARITY_\x00" + flagPrefix + "APPTAINER_\x00" + "\x00"
)

// keep holds the lists that only the stub reads, so that the linker does too.
func keep() int {
	return len(helper) + len(globalWords) + len(optionWords) + len(envWords) + int(blocked)
}
