package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const oNonblock = unix.O_NONBLOCK

// Bounds of what the flags take.
const (
	minWeight, maxWeight = 10, 1000
	minShares, maxShares = 2, 262144
	period               = 100000 // of --cpus, in microseconds
	minCPUs              = 0.01
)

// ErrBoth says that limits came from a file and from flags.
var ErrBoth = errors.New("cannot apply a cgroups TOML file while using limit flags")

// Flags are the limit flags as typed; an empty one is not set. The fields are
// those of plan.Limits, so that one converts to the other.
type Flags struct {
	BlkioWeight                           string
	BlkioWeightDevice                     []string
	CPUShares, CPUs                       string
	CPUSetCPUs, CPUSetMems                string
	Memory, MemoryReservation, MemorySwap string
	OOMKillDisable                        bool
	PIDs                                  string
}

// FromFlags makes limits of flags. An error names the flag and its value.
func FromFlags(f Flags) (*Limits, error) {
	l := &Limits{}
	l.Memory.DisableOOMKiller = f.OOMKillDisable
	l.CPU.Cpus, l.CPU.Mems = f.CPUSetCPUs, f.CPUSetMems
	for _, s := range []struct {
		flag, value string
		set         func(string) error
	}{
		{"blkio-weight", f.BlkioWeight, l.setWeight},
		{"cpu-shares", f.CPUShares, l.setShares},
		{"cpus", f.CPUs, l.setCPUs},
		{"cpuset-cpus", f.CPUSetCPUs, checkList},
		{"cpuset-mems", f.CPUSetMems, checkList},
		{"memory", f.Memory, sizeInto(&l.Memory.Limit, false)},
		{"memory-reservation", f.MemoryReservation, sizeInto(&l.Memory.Reservation, false)},
		{"memory-swap", f.MemorySwap, sizeInto(&l.Memory.Swap, true)},
		{"pids-limit", f.PIDs, l.setPIDs},
	} {
		if s.value == "" {
			continue
		}
		if err := s.set(s.value); err != nil {
			return nil, fmt.Errorf("--%s %q: %w", s.flag, s.value, err)
		}
	}
	for _, v := range f.BlkioWeightDevice {
		w, err := deviceWeight(v)
		if err != nil {
			return nil, fmt.Errorf("--blkio-weight-device %q: %w", v, err)
		}
		l.BlockIO.WeightDevice = append(l.BlockIO.WeightDevice, w)
	}
	if err := l.Memory.check(); err != nil {
		var typed []string
		for _, m := range []struct{ flag, value string }{{"memory", f.Memory}, {"memory-reservation", f.MemoryReservation}, {"memory-swap", f.MemorySwap}} {
			if m.value != "" {
				typed = append(typed, fmt.Sprintf("--%s %q", m.flag, m.value))
			}
		}
		return nil, fmt.Errorf("%s: %w", strings.Join(typed, " "), err)
	}
	return l, nil
}

func (l *Limits) setWeight(s string) error {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n != 0 && (n < minWeight || n > maxWeight) {
		return fmt.Errorf("it must be a number from %d to %d", minWeight, maxWeight)
	}
	if n != 0 {
		w := uint16(n)
		l.BlockIO.Weight = &w
	}
	return nil
}

// setShares takes -1, the default of the flag, as no limit.
func (l *Limits) setShares(s string) error {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n != -1 && (n < minShares || n > maxShares) {
		return fmt.Errorf("it must be a number from %d to %d", minShares, maxShares)
	}
	if n != -1 {
		v := uint64(n)
		l.CPU.Shares = &v
	}
	return nil
}

func (l *Limits) setCPUs(s string) error {
	most := runtime.NumCPU()
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(x) || x < minCPUs || x > float64(most) {
		return fmt.Errorf("it must be a number from %v to %d, the processors that there are", minCPUs, most)
	}
	q, p := int64(math.Round(x*period)), uint64(period)
	l.CPU.Quota, l.CPU.Period = &q, &p
	return nil
}

// setPIDs takes 0, the default of the flag, as not set.
func (l *Limits) setPIDs(s string) error {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < -1 {
		return errors.New("it must be a number of processes, or -1 for no limit")
	}
	if n != 0 {
		l.PIDs.Limit = &n
	}
	return nil
}

func sizeInto(to **int64, unlimited bool) func(string) error {
	return func(s string) error {
		if unlimited && s == "-1" {
			n := int64(-1)
			*to = &n
			return nil
		}
		n, err := parseSize(s)
		if err != nil {
			return err
		}
		*to = &n
		return nil
	}
}

// parseSize reads a number of bytes with an optional suffix b, k, m or g.
func parseSize(s string) (int64, error) {
	bad := errors.New("it must be a number of bytes above 0, such as 4096, 64k, 10m or 2g")
	if s == "" {
		return 0, bad
	}
	shift, digits := 0, s[:len(s)-1]
	switch s[len(s)-1] | 0x20 {
	case 'b':
	case 'k':
		shift = 10
	case 'm':
		shift = 20
	case 'g':
		shift = 30
	default:
		digits = s
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n == 0 || n > math.MaxInt64>>shift {
		return 0, bad
	}
	return int64(n) << shift, nil
}

// deviceWeight reads "DEVICE:WEIGHT". The device may have a colon in its name.
func deviceWeight(s string) (DeviceWeight, error) {
	i := strings.LastIndexByte(s, ':')
	if i <= 0 {
		return DeviceWeight{}, errors.New("it must be a block device, a colon and a weight, such as /dev/sda:200")
	}
	n, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil || n < minWeight || n > maxWeight {
		return DeviceWeight{}, fmt.Errorf("the weight must be a number from %d to %d", minWeight, maxWeight)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(s[:i], &st); err != nil {
		return DeviceWeight{}, &os.PathError{Op: "find", Path: s[:i], Err: err}
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFBLK {
		return DeviceWeight{}, fmt.Errorf("%s is not a block device", s[:i])
	}
	w := uint16(n)
	return DeviceWeight{Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), Weight: &w}, nil
}

func checkList(s string) error {
	_, err := parseList(s)
	return err
}

// Bounds of a list of numbers.
const (
	maxNumber = 1 << 16 // processors or memory nodes
	maxList   = 4096    // bytes of text
)

// parseList reads a list of numbers and ranges, "0-3,7", in the order of the
// numbers, each once.
func parseList(s string) ([]int, error) {
	if s == "" {
		return nil, nil
	}
	bad := errors.New("it must be a list of numbers and ranges, such as 0-3,7")
	if len(s) > maxList {
		return nil, bad
	}
	var list []int
	for _, part := range strings.Split(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(first, 10, 17)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(last, 10, 17)
		}
		if err != nil || b < a || b >= maxNumber || len(list) > 2*maxNumber {
			return nil, bad
		}
		for n := a; n <= b; n++ {
			list = append(list, int(n))
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}
