package plan

import "strings"

// Caps is a set of capabilities: bit n is capability n of capabilities(7).
type Caps uint64

// capNames lists the capabilities of Linux 6.18 in the order of their numbers.
const capNames = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE " +
	"NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT " +
	"SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG " +
	"WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"

// allCaps are all sets that a kernel can know.
const allCaps = ^Caps(0)

// CapNumber returns the number of a capability, or -1: in any case, with or
// without CAP_.
func CapNumber(name string) int {
	name = strings.ToUpper(name)
	name = strings.TrimPrefix(name, "CAP_")
	n := 0
	for c := range strings.SplitSeq(capNames, " ") {
		if c == name {
			return n
		}
		n++
	}
	return -1
}

// Has tells whether the capability called name is in c.
func (c Caps) Has(name string) bool {
	n := CapNumber(name)
	return n >= 0 && c&(1<<n) != 0
}

// Names returns the capabilities of c with CAP_ before them, in the order of
// their numbers. Those without a name are left out.
func (c Caps) Names() []string {
	var out []string
	n := 0
	for name := range strings.SplitSeq(capNames, " ") {
		if c&(1<<n) != 0 {
			out = append(out, "CAP_"+name)
		}
		n++
	}
	return out
}

// ParseCaps returns the set of the names in list, where "all" stands for all of
// them, and the names that it does not know.
func ParseCaps(list []string) (set Caps, unknown []string) {
	for _, l := range list {
		for name := range strings.SplitSeq(l, ",") {
			name = strings.TrimSpace(name)
			switch n := CapNumber(name); {
			case name == "":
			case strings.EqualFold(name, "all") || strings.EqualFold(name, "cap_all"):
				set = allCaps
			case n < 0:
				unknown = append(unknown, name)
			default:
				set |= 1 << n
			}
		}
	}
	return set, unknown
}
