package cgroup

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/linux/cgroupfs"
)

// Stats are one sample of what the processes in a group use. The JSON form is
// that of "instance stats --json".
type Stats struct {
	CPU    CPUStats    `json:"cpu_stats"`
	Memory MemoryStats `json:"memory_stats"`
	PIDs   PIDStats    `json:"pids_stats"`
	IO     IOStats     `json:"blkio_stats"`
}

// CPUStats are times in nanoseconds.
type CPUStats struct {
	Usage      CPUUsage   `json:"cpu_usage"`
	Throttling Throttling `json:"throttling_data"`
}

// CPUUsage is the time that processors worked.
type CPUUsage struct {
	Total  uint64 `json:"total_usage"`
	Kernel uint64 `json:"usage_in_kernelmode"`
	User   uint64 `json:"usage_in_usermode"`
}

// Throttling tells how a quota held the group back.
type Throttling struct {
	Periods   uint64 `json:"periods"`
	Throttled uint64 `json:"throttled_periods"`
	Time      uint64 `json:"throttled_time"`
}

// MemoryStats are bytes. Without a limit, Limit is the memory of the host.
type MemoryStats struct {
	Usage MemoryUsage       `json:"usage"`
	Stats map[string]uint64 `json:"stats"` // all the kernel counts
}

// MemoryUsage are bytes, but for Failures.
type MemoryUsage struct {
	Usage    uint64 `json:"usage"`
	Max      uint64 `json:"max_usage"`
	Failures uint64 `json:"failcnt"`
	Limit    uint64 `json:"limit"`
}

// PIDStats counts tasks. Limit is 0 where there is none.
type PIDStats struct {
	Current uint64 `json:"current"`
	Limit   uint64 `json:"limit"`
}

// IOStats are those of block devices.
type IOStats struct {
	Bytes []IOEntry `json:"io_service_bytes_recursive"`
	Ops   []IOEntry `json:"io_serviced_recursive"`
}

// IOEntry is one count of one device. Op is Read, Write or Discard.
type IOEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

// Sum adds the bytes of one kind.
func (s *IOStats) Sum(op string) uint64 {
	var n uint64
	for _, e := range s.Bytes {
		if e.Op == op {
			n += e.Value
		}
	}
	return n
}

// ErrNoStats says that a process is in no group of its own to read from.
var ErrNoStats = errors.New("no statistics: the kernel counts nothing for this group")

// PathOf returns the group of the process pid, as Group.Path does.
func PathOf(pid int) (string, error) {
	h, err := cgroupfs.FindHost()
	if err != nil {
		return "", err
	}
	if h.V2 {
		return h.Own(strconv.Itoa(pid), cgroupfs.Unified)
	}
	for _, c := range usualV1 {
		if h.Mounted(c) {
			return h.Own(strconv.Itoa(pid), c)
		}
	}
	return "", ErrNoStats
}

// ReadStats takes a sample of the group at place, a Group.Path.
func ReadStats(place string) (*Stats, error) {
	h, err := cgroupfs.FindHost()
	if err != nil {
		return nil, err
	}
	s := &Stats{}
	s.Memory.Stats = map[string]uint64{}
	if h.V2 {
		err = s.readV2(h, place)
	} else {
		err = s.readV1(h, place)
	}
	if err != nil {
		return nil, err
	}
	s.Memory.Usage.Limit = min(s.Memory.Usage.Limit, hostMemory())
	return s, nil
}

// hostMemory is the memory of the host in bytes.
func hostMemory() uint64 {
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) != nil {
		return 0
	}
	return uint64(si.Totalram) * uint64(si.Unit)
}

func (s *Stats) readV2(h *cgroupfs.Host, place string) error {
	d, err := h.Open(cgroupfs.Unified, place)
	if err != nil {
		return err
	}
	defer d.Close()
	if !d.Has("memory.current") && !d.Has("pids.current") {
		return ErrNoStats
	}
	r := reader{d: d}
	cpu := r.table("cpu.stat")
	s.CPU.Usage = CPUUsage{Total: cpu["usage_usec"] * 1000, Kernel: cpu["system_usec"] * 1000, User: cpu["user_usec"] * 1000}
	s.CPU.Throttling = Throttling{Periods: cpu["nr_periods"], Throttled: cpu["nr_throttled"], Time: cpu["throttled_usec"] * 1000}
	s.Memory.Stats = r.table("memory.stat")
	s.Memory.Usage = MemoryUsage{Usage: r.number("memory.current", 0), Max: r.number("memory.peak", 0), // Linux 5.19
		Failures: r.table("memory.events")["max"], Limit: r.number("memory.max", 1<<64-1)}
	s.PIDs = PIDStats{Current: r.number("pids.current", 0), Limit: r.number("pids.max", 0)}
	s.IO = parseIO(r.text("io.stat"))
	return r.err
}

func (s *Stats) readV1(h *cgroupfs.Host, place string) error {
	found := false
	for _, c := range usualV1 {
		if !h.Mounted(c) {
			continue
		}
		d, err := h.Open(c, place)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		found = true
		err = s.readController(c, d)
		d.Close()
		if err != nil {
			return err
		}
	}
	if !found {
		return ErrNoStats
	}
	return nil
}

// tick is the unit of cpuacct.stat in nanoseconds, on every processor that we
// run on.
const tick = 10_000_000

func (s *Stats) readController(controller string, d *cgroupfs.Dir) error {
	r := reader{d: d}
	switch controller {
	case "cpuacct":
		t := r.table("cpuacct.stat")
		s.CPU.Usage = CPUUsage{Total: r.number("cpuacct.usage", 0), Kernel: t["system"] * tick, User: t["user"] * tick}
	case "cpu":
		t := r.table("cpu.stat")
		s.CPU.Throttling = Throttling{Periods: t["nr_periods"], Throttled: t["nr_throttled"], Time: t["throttled_time"]}
	case "memory":
		s.Memory.Stats = r.table("memory.stat")
		s.Memory.Usage = MemoryUsage{Usage: r.number("memory.usage_in_bytes", 0), Max: r.number("memory.max_usage_in_bytes", 0),
			Failures: r.number("memory.failcnt", 0), Limit: r.number("memory.limit_in_bytes", 0)}
	case "pids":
		s.PIDs = PIDStats{Current: r.number("pids.current", 0), Limit: r.number("pids.max", 0)}
	case "blkio":
		s.IO.Bytes = parseBlkio(r.text("blkio.throttle.io_service_bytes_recursive"))
		s.IO.Ops = parseBlkio(r.text("blkio.throttle.io_serviced_recursive"))
	}
	return r.err
}

// A reader reads files of one group. A file that this kernel does not have is
// empty.
type reader struct {
	d   *cgroupfs.Dir
	err error
}

func (r *reader) text(name string) string {
	text, err := r.d.Read(name)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) && r.err == nil {
		r.err = err
	}
	return text
}

// number reads one number; max is what "max" means.
func (r *reader) number(name string, max uint64) uint64 {
	text := r.text(name)
	if text == "max" {
		return max
	}
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

func (r *reader) table(name string) map[string]uint64 { return parseTable(r.text(name)) }

// parseTable reads lines of a name and a number.
func parseTable(text string) map[string]uint64 {
	m := map[string]uint64{}
	for l := range strings.Lines(text) {
		words := strings.Fields(l)
		if len(words) != 2 {
			continue
		}
		if n, err := strconv.ParseUint(words[1], 10, 64); err == nil {
			m[words[0]] = n
		}
	}
	return m
}

// parseDevice reads "MAJOR:MINOR".
func parseDevice(s string) (major, minor uint64, ok bool) {
	a, b, _ := strings.Cut(s, ":")
	major, e1 := strconv.ParseUint(a, 10, 32)
	minor, e2 := strconv.ParseUint(b, 10, 32)
	return major, minor, e1 == nil && e2 == nil
}

// parseIO reads io.stat: a device and words like "rbytes=1" in each line.
func parseIO(text string) IOStats {
	var s IOStats
	ops := []struct {
		key, op string
		to      *[]IOEntry
	}{{"rbytes", "Read", &s.Bytes}, {"wbytes", "Write", &s.Bytes}, {"dbytes", "Discard", &s.Bytes},
		{"rios", "Read", &s.Ops}, {"wios", "Write", &s.Ops}, {"dios", "Discard", &s.Ops}}
	for l := range strings.Lines(text) {
		words := strings.Fields(l)
		if len(words) < 2 {
			continue
		}
		major, minor, ok := parseDevice(words[0])
		if !ok {
			continue
		}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			n, err := strconv.ParseUint(value, 10, 64)
			for _, o := range ops {
				if o.key == key && err == nil {
					*o.to = append(*o.to, IOEntry{Major: major, Minor: minor, Op: o.op, Value: n})
				}
			}
		}
	}
	return s
}

// parseBlkio reads a file of blkio: device, kind and number in each line, and a
// total.
func parseBlkio(text string) []IOEntry {
	var list []IOEntry
	for l := range strings.Lines(text) {
		words := strings.Fields(l)
		if len(words) != 3 || !slices.Contains([]string{"Read", "Write", "Discard"}, words[1]) {
			continue
		}
		major, minor, ok := parseDevice(words[0])
		n, err := strconv.ParseUint(words[2], 10, 64)
		if ok && err == nil {
			list = append(list, IOEntry{Major: major, Minor: minor, Op: words[1], Value: n})
		}
	}
	return list
}
