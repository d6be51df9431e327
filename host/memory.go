package host

import (
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/linux/secret"
)

// Memory is how much memory a single step may take here, and what sets that.
type Memory struct {
	Size uint64 // bytes
	Rule string // such as "the memory limit of the control group"
}

// MemoryLeft finds the tightest of the limits on this process's memory: half of
// what the host or the control group has available, since others need some too,
// and what the resource limits of the process leave.
func MemoryLeft() Memory {
	limits := map[int]uint64{}
	for _, which := range []int{unix.RLIMIT_AS, unix.RLIMIT_DATA} {
		var l unix.Rlimit
		if unix.Getrlimit(which, &l) == nil && l.Cur != math.MaxUint64 {
			limits[which] = l.Cur
		}
	}
	return memoryLeft("", limits)
}

// keyRow tells how safe keys of encrypted images are in this host's memory, of
// which try was just allocated for one.
func (k *kernel) keyRow(try []byte, err error) Row {
	if err != nil {
		return Row{"memory for keys", Limited, err.Error(), "raise the limit of locked memory (ulimit -l) to 64 KiB or more: encrypted images need it"}
	}
	secret.Free(try)
	row := Row{Name: "memory for keys", Status: OK, Found: "can be locked"}
	if strings.Count(k.line("/proc/swaps"), "\n") > 0 {
		row.Found += "; swap space is on, and what is derived from a passphrase on the way to a key may get there: encrypt it"
	}
	return row
}

// slack is left for the rest of the process, in bytes.
const slack = 64 << 20

// memoryLeft is MemoryLeft with the host's files below root.
func memoryLeft(root string, limits map[int]uint64) Memory {
	m := Memory{math.MaxUint64, "the host"}
	tighten := func(n uint64, rule string) {
		if n < m.Size {
			m = Memory{n, rule}
		}
	}
	var status map[string]uint64
	if len(limits) > 0 {
		status = fieldsOf(root + "/proc/self/status")
	}
	for which, key := range map[int]string{unix.RLIMIT_AS: "VmSize", unix.RLIMIT_DATA: "VmData"} {
		if l, ok := limits[which]; ok {
			rule := map[int]string{unix.RLIMIT_AS: "RLIMIT_AS (ulimit -v)", unix.RLIMIT_DATA: "RLIMIT_DATA (ulimit -d)"}[which]
			tighten(l-min(l, status[key]<<10+slack), rule)
		}
	}
	if n, ok := fieldsOf(root + "/proc/meminfo")["MemAvailable"]; ok {
		tighten(n<<10/2, "half of the host's available memory")
	}
	if n, ok := groupLeft(root); ok {
		tighten(n/2, "half of the memory that the control group has left")
	}
	return m
}

// groupLeft returns what the control group of the process and those above it
// have left. Pages of files do not count: the kernel drops them first.
func groupLeft(root string) (left uint64, found bool) {
	text, err := os.ReadFile(root + "/proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	left = math.MaxUint64
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || strings.Contains(parts[2], "..") {
			continue
		}
		base, limit, usage := root+"/sys/fs/cgroup", "memory.max", "memory.current"
		inactive, active := "inactive_file", "active_file"
		if parts[0] != "0" {
			if parts[1] != "memory" {
				continue
			}
			base, limit, usage = base+"/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
			inactive, active = "total_inactive_file", "total_active_file"
		}
		for dir := parts[2]; ; dir = dir[:strings.LastIndexByte(dir, '/')] {
			most, ok := numberIn(base + dir + "/" + limit)
			used, _ := numberIn(base + dir + "/" + usage)
			stat := fieldsOf(base + dir + "/memory.stat")
			used -= min(used, stat[inactive]+stat[active])
			if ok && most < 1<<62 { // version 1 writes a number that stands for none
				left, found = min(left, most-min(most, used)), true
			}
			if !strings.Contains(dir, "/") {
				break
			}
		}
	}
	return left, found
}

func numberIn(path string) (uint64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil // "max" is no number
}

// fieldsOf reads lines of a name and a number, with or without a colon and a
// unit.
func fieldsOf(path string) map[string]uint64 {
	text, _ := os.ReadFile(path)
	out := map[string]uint64{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 {
			if n, err := strconv.ParseUint(f[1], 10, 54); err == nil {
				out[strings.TrimSuffix(f[0], ":")] = n
			}
		}
	}
	return out
}
