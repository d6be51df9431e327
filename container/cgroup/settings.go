package cgroup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A setting is one value that the kernel shall have, in the first of its files
// that the kernel offers.
type setting struct {
	controller string
	what       string // for people
	files      []file
}

// A file is a file of a group, what is written to it, and how that reads back;
// without check the file cannot be read.
type file struct {
	name, value string
	check       func(got string) bool
}

// settings collects them.
type settings struct {
	list  []setting
	notes []string
}

func (s *settings) add(controller, what string, files ...file) {
	s.list = append(s.list, setting{controller, what, files})
}

// skip notes limits that this version of cgroups does not have.
func (s *settings) skip(what, version, why string) {
	s.notes = append(s.notes, what+" is ignored: cgroup "+version+" "+why)
}

// controllers returns those that the settings need, each once.
func (s *settings) controllers() []string {
	var out []string
	for i := range s.list {
		out = append(out, s.list[i].controller)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// exact is a file that reads back as it was written.
func exact(name, value string) file {
	return file{name, value, func(got string) bool { return got == value }}
}

// granule is more than any size of a page, to which the kernel rounds bytes.
const granule = 64 << 10

// size is a file with a number of bytes, which the kernel rounds down to whole
// pages. A negative one is no limit, as the file calls that.
func size(name string, n int64, none string) file {
	if n < 0 {
		return file{name, none, func(got string) bool {
			v, err := strconv.ParseUint(got, 10, 64)
			return got == none || err == nil && v >= unlimited
		}}
	}
	return file{name, strconv.FormatInt(n, 10), func(got string) bool {
		v, err := strconv.ParseInt(got, 10, 64)
		return err == nil && v <= n && n-v < granule
	}}
}

// unlimited is what cgroup v1 shows at least where there is no limit: the most
// pages that a counter can count.
const unlimited = 1 << 62

// list is a file with a list of numbers, which the kernel may write otherwise.
func list(name, value string) file {
	return file{name, value, func(got string) bool {
		a, err := parseList(got)
		b, _ := parseList(value)
		return err == nil && slices.Equal(a, b)
	}}
}

// line is a file with one line per device: first its name, then values.
func line(name, key, value string) file {
	return file{name, key + " " + value, func(got string) bool { return hasLine(got, key, value) }}
}

func hasLine(text, key, value string) bool {
	for l := range strings.Lines(text) {
		words := strings.Fields(l)
		if len(words) == 0 || words[0] != key {
			continue
		}
		all := true
		for _, w := range strings.Fields(value) {
			all = all && slices.Contains(words[1:], w)
		}
		if all {
			return true
		}
	}
	return false
}

// weight is a file of weights, which may show the default among those of
// devices.
func weight(name string, n int) file {
	value := strconv.Itoa(n)
	return file{name, value, func(got string) bool { return got == value || hasLine(got, "default", value) }}
}

// v2 is what l means to the unified hierarchy, but for the devices.
func (l *Limits) v2() settings {
	var s settings
	l.Memory.v2(&s)
	c := &l.CPU
	if isSet(c.Shares) {
		s.add("cpu", "cpu.shares", exact("cpu.weight", utoa(sharesToWeight(*c.Shares))))
	}
	if isSet(c.Quota) || isSet(c.Period) {
		quota, p := "max", uint64(period)
		if c.Quota != nil && *c.Quota > 0 {
			quota = itoa(*c.Quota)
		}
		if isSet(c.Period) {
			p = *c.Period
		}
		s.add("cpu", "cpu.quota", exact("cpu.max", quota+" "+utoa(p)))
	}
	if isSet(c.RealtimePeriod) || isSet(c.RealtimeRuntime) {
		s.skip("cpu.realtimeRuntime", "v2", "has no limit of real-time tasks")
	}
	if c.Cpus != "" {
		s.add("cpuset", "cpu.cpus", list("cpuset.cpus", c.Cpus))
	}
	if c.Mems != "" {
		s.add("cpuset", "cpu.mems", list("cpuset.mems", c.Mems))
	}
	if isSet(l.PIDs.Limit) {
		s.add("pids", "pids.limit", exact("pids.max", orMax(*l.PIDs.Limit)))
	}
	l.BlockIO.v2(&s)
	for _, h := range l.Hugepages {
		s.add("hugetlb", "hugepageLimits of "+h.PageSize, atMost("hugetlb."+h.PageSize+".max", h.Limit))
	}
	if l.Network.ClassID != nil || len(l.Network.Priorities) > 0 {
		s.skip("network", "v2", "does not mark packets")
	}
	l.rdma(&s)
	for _, key := range sortedKeys(l.Unified) {
		value := l.Unified[key]
		controller, _, _ := strings.Cut(key, ".")
		s.add(controller, "unified."+key, file{key, value, func(got string) bool { return sameText(got, value) }})
	}
	return s
}

func (m *Memory) v2(s *settings) {
	if isSet(m.Limit) {
		s.add("memory", "memory.limit", size("memory.max", *m.Limit, "max"))
	}
	if isSet(m.Reservation) {
		s.add("memory", "memory.reservation", size("memory.low", *m.Reservation, "max"))
	}
	if isSet(m.Swap) {
		// The unified hierarchy counts swap by itself.
		n := int64(-1)
		if *m.Swap > 0 {
			n = *m.Swap - *m.Limit
		}
		s.add("memory", "memory.swap", size("memory.swap.max", n, "max"))
	}
	if isSet(m.Kernel) || isSet(m.KernelTCP) {
		s.skip("memory.kernel", "v2", "counts the kernel's memory in memory.limit")
	}
	if m.Swappiness != nil {
		s.skip("memory.swappiness", "v2", "has one swappiness for the whole host")
	}
	if m.DisableOOMKiller {
		s.skip("memory.disableOOMKiller (--oom-kill-disable)", "v2", "cannot turn the OOM killer off")
	}
}

func (b *BlockIO) v2(s *settings) {
	// The kernel has one of two schedulers with weights, each with a scale of
	// its own.
	if isSet(b.Weight) {
		s.add("io", "blockIO.weight", weight("io.bfq.weight", int(*b.Weight)), weight("io.weight", ioWeight(*b.Weight)))
	}
	if isSet(b.LeafWeight) {
		s.skip("blockIO.leafWeight", "v2", "has no weight of leaves")
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			key := number(d.Major, d.Minor)
			s.add("io", "blockIO.weightDevice "+key, line("io.bfq.weight", key, utoa(uint64(*d.Weight))), line("io.weight", key, strconv.Itoa(ioWeight(*d.Weight))))
		}
	}
	for _, t := range []struct {
		key   string
		rates []DeviceRate
	}{{"rbps", b.ReadBps}, {"wbps", b.WriteBps}, {"riops", b.ReadIOPS}, {"wiops", b.WriteIOPS}} {
		for _, d := range t.rates {
			value := t.key + "=" + utoa(d.Rate)
			if d.Rate == 0 {
				value = t.key + "=max"
			}
			key := number(d.Major, d.Minor)
			f := line("io.max", key, value)
			if d.Rate == 0 {
				f.check = func(got string) bool { return !strings.Contains(got, key+" ") || hasLine(got, key, value) }
			}
			s.add("io", "blockIO throttle of "+key, f)
		}
	}
}

// v1 is what l means to the hierarchies of version 1.
func (l *Limits) v1() settings {
	var s settings
	l.Memory.v1(&s)
	c := &l.CPU
	if isSet(c.Shares) {
		s.add("cpu", "cpu.shares", exact("cpu.shares", utoa(*c.Shares)))
	}
	if isSet(c.Period) {
		s.add("cpu", "cpu.period", exact("cpu.cfs_period_us", utoa(*c.Period)))
	}
	if isSet(c.Quota) {
		s.add("cpu", "cpu.quota", exact("cpu.cfs_quota_us", itoa(max(*c.Quota, -1))))
	}
	if isSet(c.RealtimePeriod) {
		s.add("cpu", "cpu.realtimePeriod", exact("cpu.rt_period_us", utoa(*c.RealtimePeriod)))
	}
	if isSet(c.RealtimeRuntime) {
		s.add("cpu", "cpu.realtimeRuntime", exact("cpu.rt_runtime_us", itoa(*c.RealtimeRuntime)))
	}
	if c.Cpus != "" {
		s.add("cpuset", "cpu.cpus", list("cpuset.cpus", c.Cpus))
	}
	if c.Mems != "" {
		s.add("cpuset", "cpu.mems", list("cpuset.mems", c.Mems))
	}
	if isSet(l.PIDs.Limit) {
		s.add("pids", "pids.limit", exact("pids.max", orMax(*l.PIDs.Limit)))
	}
	l.BlockIO.v1(&s)
	for _, h := range l.Hugepages {
		s.add("hugetlb", "hugepageLimits of "+h.PageSize, atMost("hugetlb."+h.PageSize+".limit_in_bytes", h.Limit))
	}
	if id := l.Network.ClassID; id != nil {
		s.add("net_cls", "network.classID", exact("net_cls.classid", utoa(uint64(*id))))
	}
	for _, p := range l.Network.Priorities {
		s.add("net_prio", "network.priorities of "+p.Name, line("net_prio.ifpriomap", p.Name, utoa(uint64(p.Priority))))
	}
	l.rdma(&s)
	for i := range l.Devices {
		name := "devices.deny"
		if l.Devices[i].Allow {
			name = "devices.allow"
		}
		s.add("devices", "devices", file{name: name, value: l.Devices[i].String()})
	}
	return s
}

func (m *Memory) v1(s *settings) {
	add := func(what string, n *int64, name string) {
		if isSet(n) {
			s.add("memory", what, size(name, *n, "-1"))
		}
	}
	add("memory.limit", m.Limit, "memory.limit_in_bytes")
	add("memory.reservation", m.Reservation, "memory.soft_limit_in_bytes")
	add("memory.swap", m.Swap, "memory.memsw.limit_in_bytes")
	add("memory.kernel", m.Kernel, "memory.kmem.limit_in_bytes")
	add("memory.kernelTCP", m.KernelTCP, "memory.kmem.tcp.limit_in_bytes")
	if m.Swappiness != nil {
		s.add("memory", "memory.swappiness", exact("memory.swappiness", utoa(*m.Swappiness)))
	}
	if m.DisableOOMKiller {
		s.add("memory", "memory.disableOOMKiller", file{"memory.oom_control", "1", func(got string) bool { return hasLine(got, "oom_kill_disable", "1") }})
	}
}

func (b *BlockIO) v1(s *settings) {
	if isSet(b.Weight) {
		s.add("blkio", "blockIO.weight", weight("blkio.weight", int(*b.Weight)), weight("blkio.bfq.weight", int(*b.Weight)))
	}
	if isSet(b.LeafWeight) {
		s.add("blkio", "blockIO.leafWeight", weight("blkio.leaf_weight", int(*b.LeafWeight)))
	}
	for _, d := range b.WeightDevice {
		key := number(d.Major, d.Minor)
		if d.Weight != nil {
			w := utoa(uint64(*d.Weight))
			s.add("blkio", "blockIO.weightDevice "+key, line("blkio.weight_device", key, w), line("blkio.bfq.weight_device", key, w))
		}
		if d.LeafWeight != nil {
			s.add("blkio", "blockIO.weightDevice "+key, line("blkio.leaf_weight_device", key, utoa(uint64(*d.LeafWeight))))
		}
	}
	for _, t := range []struct {
		name  string
		rates []DeviceRate
	}{{"read_bps", b.ReadBps}, {"write_bps", b.WriteBps}, {"read_iops", b.ReadIOPS}, {"write_iops", b.WriteIOPS}} {
		for _, d := range t.rates {
			key, value := number(d.Major, d.Minor), utoa(d.Rate)
			f := line("blkio.throttle."+t.name+"_device", key, value)
			if d.Rate == 0 {
				f.check = func(got string) bool { return !strings.Contains(got, key+" ") }
			}
			s.add("blkio", "blockIO throttle of "+key, f)
		}
	}
}

// rdma has one form in both versions.
func (l *Limits) rdma(s *settings) {
	for _, name := range sortedKeys(l.RDMA) {
		r := l.RDMA[name]
		var words []string
		if r.Handles != nil {
			words = append(words, "hca_handle="+utoa(uint64(*r.Handles)))
		}
		if r.Objects != nil {
			words = append(words, "hca_object="+utoa(uint64(*r.Objects)))
		}
		if len(words) > 0 {
			s.add("rdma", "rdma."+name, line("rdma.max", name, strings.Join(words, " ")))
		}
	}
}

// String is the rule as the devices controller of cgroup v1 reads it.
func (r *DeviceRule) String() string {
	kind, access := r.Type, r.Access
	if kind == "" {
		kind = "a"
	}
	if access == "" {
		access = "rwm"
	}
	star := func(n *int64) string {
		if n == nil || *n < 0 {
			return "*"
		}
		return itoa(*n)
	}
	return kind + " " + star(r.Major) + ":" + star(r.Minor) + " " + access
}

// atMost is a file with a number of bytes that the kernel rounds down to whole
// huge pages.
func atMost(name string, n uint64) file {
	return file{name, utoa(n), func(got string) bool {
		v, err := strconv.ParseUint(got, 10, 64)
		return err == nil && v <= n
	}}
}

// sameText compares what was written to a raw file with what it holds.
func sameText(got, want string) bool {
	if got == want || slices.Contains(strings.Split(got, "\n"), want) {
		return true
	}
	key, value, ok := strings.Cut(want, " ")
	if ok && hasLine(got, key, value) || hasLine(got, "default", want) {
		return true
	}
	n, err := strconv.ParseInt(want, 10, 64)
	if err == nil && n >= 0 && size("", n, "").check(got) {
		return true
	}
	a, err := parseList(want)
	b, e := parseList(got)
	// cpu.max shows the period too.
	return err == nil && e == nil && slices.Equal(a, b) || strings.HasPrefix(got, want+" ")
}

// sharesToWeight puts 2 to 262144 on the scale 1 to 10000.
func sharesToWeight(shares uint64) uint64 {
	shares = min(max(shares, minShares), maxShares)
	return 1 + (shares-minShares)*9999/(maxShares-minShares)
}

// ioWeight puts 10 to 1000 on the scale 1 to 10000.
func ioWeight(w uint16) int { return 1 + (int(w)-minWeight)*9999/(maxWeight-minWeight) }

func orMax(n int64) string {
	if n < 0 {
		return "max"
	}
	return itoa(n)
}

// isSet tells whether a number was given: 0 has always meant that it was not.
func isSet[T int64 | uint64 | uint16](n *T) bool { return n != nil && *n != 0 }

func number(major, minor int64) string { return fmt.Sprintf("%d:%d", major, minor) }

func itoa(n int64) string  { return strconv.FormatInt(n, 10) }
func utoa(n uint64) string { return strconv.FormatUint(n, 10) }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
