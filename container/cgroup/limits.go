package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// maxTOML bounds a file of limits, in bytes.
const maxTOML = 1 << 20

// maxEntries bounds every list in a file of limits.
const maxEntries = 1024

// Limits are limits of resources. The numbers of the zero value, nil, are not
// set. The field tags are the names in a file of --apply-cgroups.
type Limits struct {
	Devices   []DeviceRule      `toml:"devices"`
	Memory    Memory            `toml:"memory"`
	CPU       CPU               `toml:"cpu"`
	PIDs      PIDs              `toml:"pids"`
	BlockIO   BlockIO           `toml:"blockIO"`
	Hugepages []Hugepages       `toml:"hugepageLimits"`
	Network   Network           `toml:"network"`
	RDMA      map[string]RDMA   `toml:"rdma"`
	Unified   map[string]string `toml:"unified"` // a file of cgroup v2 and its value
}

// DeviceRule allows or forbids access to devices. Without a rule all are
// allowed; a later rule wins.
type DeviceRule struct {
	Allow  bool   `toml:"allow"`
	Type   string `toml:"type"`   // a (all), b or c
	Major  *int64 `toml:"major"`  // nil or -1: all
	Minor  *int64 `toml:"minor"`  // nil or -1: all
	Access string `toml:"access"` // of "rwm"; empty: all
}

// Memory are limits in bytes; -1 is none.
type Memory struct {
	Limit       *int64 `toml:"limit"`
	Reservation *int64 `toml:"reservation"`
	// Swap is memory and swap together, as cgroup v1 counts them.
	Swap             *int64  `toml:"swap"`
	Kernel           *int64  `toml:"kernel"`
	KernelTCP        *int64  `toml:"kernelTCP"`
	Swappiness       *uint64 `toml:"swappiness"`
	DisableOOMKiller bool    `toml:"disableOOMKiller"`
}

// CPU are limits of processors. Times are microseconds.
type CPU struct {
	Shares          *uint64 `toml:"shares"`
	Quota           *int64  `toml:"quota"`
	Period          *uint64 `toml:"period"`
	RealtimeRuntime *int64  `toml:"realtimeRuntime"`
	RealtimePeriod  *uint64 `toml:"realtimePeriod"`
	Cpus            string  `toml:"cpus"`
	Mems            string  `toml:"mems"`
}

// PIDs limits the number of tasks; -1 is no limit.
type PIDs struct {
	Limit *int64 `toml:"limit"`
}

// BlockIO are limits of block devices.
type BlockIO struct {
	Weight       *uint16        `toml:"weight"` // 10 to 1000
	LeafWeight   *uint16        `toml:"leafWeight"`
	WeightDevice []DeviceWeight `toml:"weightDevice"`
	ReadBps      []DeviceRate   `toml:"throttleReadBpsDevice"`
	WriteBps     []DeviceRate   `toml:"throttleWriteBpsDevice"`
	ReadIOPS     []DeviceRate   `toml:"throttleReadIOPSDevice"`
	WriteIOPS    []DeviceRate   `toml:"throttleWriteIOPSDevice"`
}

// DeviceWeight is the weight of one block device.
type DeviceWeight struct {
	Major      int64   `toml:"major"`
	Minor      int64   `toml:"minor"`
	Weight     *uint16 `toml:"weight"`
	LeafWeight *uint16 `toml:"leafWeight"`
}

// DeviceRate is a limit per second of one block device.
type DeviceRate struct {
	Major int64  `toml:"major"`
	Minor int64  `toml:"minor"`
	Rate  uint64 `toml:"rate"`
}

// Hugepages limits the bytes in huge pages of one size.
type Hugepages struct {
	PageSize string `toml:"pageSize"` // such as 2MB
	Limit    uint64 `toml:"limit"`
}

// Network marks packets. Only cgroup v1 has it.
type Network struct {
	ClassID    *uint32    `toml:"classID"`
	Priorities []Priority `toml:"priorities"`
}

// Priority is that of packets through one network device.
type Priority struct {
	Name     string `toml:"name"`
	Priority uint32 `toml:"priority"`
}

// RDMA limits the use of one RDMA device.
type RDMA struct {
	Handles *uint32 `toml:"hcaHandles"`
	Objects *uint32 `toml:"hcaObjects"`
}

// ReadTOML reads limits from the text of a file that --apply-cgroups names.
// Keys that mean nothing come back as notes.
func ReadTOML(r io.Reader) (*Limits, []string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxTOML+1))
	if err != nil {
		return nil, nil, err
	}
	if len(text) > maxTOML {
		return nil, nil, fmt.Errorf("the file is larger than %d bytes", maxTOML)
	}
	l := new(Limits)
	var notes []string
	err = toml.NewDecoder(strings.NewReader(string(text))).DisallowUnknownFields().Decode(l)
	if unknown := new(toml.StrictMissingError); errors.As(err, &unknown) {
		for i := range unknown.Errors {
			row, _ := unknown.Errors[i].Position()
			notes = append(notes, fmt.Sprintf("line %d: %q is no limit and is ignored", row, strings.Join(unknown.Errors[i].Key(), ".")))
		}
	} else if bad := new(toml.DecodeError); errors.As(err, &bad) {
		row, col := bad.Position()
		return nil, nil, fmt.Errorf("line %d, column %d: %w", row, col, err)
	} else if err != nil {
		return nil, nil, err
	}
	return l, notes, l.check()
}

// OpenTOML reads limits from the file at path.
func OpenTOML(path string) (*Limits, []string, error) {
	// Without O_NONBLOCK a named pipe would hold the start up for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|oNonblock, 0)
	if err == nil {
		defer f.Close()
		var st os.FileInfo
		if st, err = f.Stat(); err == nil && !st.Mode().IsRegular() {
			err = errors.New("it is not a file")
		}
	}
	var l *Limits
	var notes []string
	if err == nil {
		l, notes, err = ReadTOML(f)
	}
	if pe := new(os.PathError); errors.As(err, &pe) {
		err = pe.Err
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read limits from %q: %w", path, err)
	}
	for i := range notes {
		notes[i] = path + ", " + notes[i]
	}
	return l, notes, nil
}

// check refuses what could mean another thing to the kernel than a limit.
//
// Security: values become lines of kernel files and must hold no separator; a
// key of the unified table becomes a file name, and must not be one of those
// that move processes or hand controllers on.
func (l *Limits) check() error {
	for _, n := range []int{len(l.Devices), len(l.BlockIO.WeightDevice), len(l.BlockIO.ReadBps), len(l.BlockIO.WriteBps), len(l.BlockIO.ReadIOPS),
		len(l.BlockIO.WriteIOPS), len(l.Hugepages), len(l.Network.Priorities), len(l.RDMA), len(l.Unified)} {
		if n > maxEntries {
			return fmt.Errorf("a list has %d entries, more than %d", n, maxEntries)
		}
	}
	if err := l.Memory.check(); err != nil {
		return err
	}
	if w := l.BlockIO.Weight; w != nil && *w != 0 && (*w < minWeight || *w > maxWeight) {
		return fmt.Errorf("blockIO.weight %d is not from %d to %d", *w, minWeight, maxWeight)
	}
	for _, w := range l.BlockIO.WeightDevice {
		if w.Weight != nil && (*w.Weight < minWeight || *w.Weight > maxWeight) {
			return fmt.Errorf("weight %d of the device %d:%d is not from %d to %d", *w.Weight, w.Major, w.Minor, minWeight, maxWeight)
		}
	}
	for _, f := range []struct{ key, value string }{{"cpu.cpus", l.CPU.Cpus}, {"cpu.mems", l.CPU.Mems}} {
		if _, err := parseList(f.value); err != nil {
			return fmt.Errorf("%s %q: %w", f.key, f.value, err)
		}
	}
	for i := range l.Devices {
		if err := l.Devices[i].check(); err != nil {
			return fmt.Errorf("devices, entry %d: %w", i+1, err)
		}
	}
	for _, h := range l.Hugepages {
		if !isWord(h.PageSize, "") || !strings.HasSuffix(h.PageSize, "B") {
			return fmt.Errorf("hugepageLimits.pageSize %q is not a size such as 2MB", h.PageSize)
		}
	}
	for _, p := range l.Network.Priorities {
		if !isWord(p.Name, "-_.:@") {
			return fmt.Errorf("network.priorities.name %q is not the name of a network device", p.Name)
		}
	}
	for name := range l.RDMA {
		if !isWord(name, "-_.") {
			return fmt.Errorf("rdma.%q is not the name of an RDMA device", name)
		}
	}
	for key, value := range l.Unified {
		if err := checkUnified(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (m *Memory) check() error {
	if m.Swap != nil && *m.Swap > 0 {
		if m.Limit == nil || *m.Limit <= 0 {
			return errors.New("a limit of memory and swap needs one of memory too")
		}
		if *m.Swap < *m.Limit {
			return fmt.Errorf("the limit of memory and swap, %d bytes, is below that of memory, %d bytes", *m.Swap, *m.Limit)
		}
	}
	if m.Reservation != nil && m.Limit != nil && *m.Limit > 0 && *m.Reservation > *m.Limit {
		return fmt.Errorf("the memory reservation, %d bytes, is above the limit, %d bytes", *m.Reservation, *m.Limit)
	}
	for _, v := range []*int64{m.Limit, m.Reservation, m.Swap, m.Kernel, m.KernelTCP} {
		if v != nil && *v < -1 {
			return fmt.Errorf("%d is not a number of bytes", *v)
		}
	}
	return nil
}

func (r *DeviceRule) check() error {
	if !slices.Contains([]string{"", "a", "b", "c"}, r.Type) {
		return fmt.Errorf("type %q is none of a, b and c", r.Type)
	}
	if strings.Trim(r.Access, "rwm") != "" {
		return fmt.Errorf("access %q has letters other than r, w and m", r.Access)
	}
	for _, n := range []*int64{r.Major, r.Minor} {
		if n != nil && (*n < -1 || *n > 1<<32-1) {
			return fmt.Errorf("%d is not a device number", *n)
		}
	}
	return nil
}

// unifiedControllers are those whose files the unified table may write.
var unifiedControllers = []string{"cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"}

func checkUnified(key, value string) error {
	controller, rest, ok := strings.Cut(key, ".")
	if !ok || rest == "" || !slices.Contains(unifiedControllers, controller) || !isWord(rest, "._") {
		return fmt.Errorf("unified key %q is not a file of one of the controllers %s", key, strings.Join(unifiedControllers, ", "))
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) || value == "" || len(value) > 4096 {
		return fmt.Errorf("unified key %q: the value %q is not one line of text", key, value)
	}
	return nil
}

// isWord tells whether s has only ASCII letters and digits and the bytes of
// extra.
func isWord(s, extra string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && strings.IndexByte(extra, c) < 0 {
			return false
		}
	}
	return s != "" && len(s) < 256
}
