package cgroup

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Columns are the heads of a table of statistics.
var Columns = []string{"INSTANCE NAME", "CPU USAGE", "MEM USAGE / LIMIT", "MEM %", "BLOCK I/O", "PIDS"}

// Row makes the cells of Columns for the instance called name. The use of
// processors is that between before, which may be nil, and s, in the time that
// passed between them.
func (s *Stats) Row(name string, before *Stats, passed time.Duration) []string {
	return []string{
		name,
		percent(s.CPUPercent(before, passed)),
		FormatSize(s.Memory.Usage.Usage) + " / " + FormatSize(s.Memory.Usage.Limit),
		percent(s.MemoryPercent()),
		FormatSize(s.IO.Sum("Read")) + " / " + FormatSize(s.IO.Sum("Write")),
		strconv.FormatUint(s.PIDs.Current, 10),
	}
}

// CPUPercent is the use of processors since before; 100 is one of them all the
// time.
func (s *Stats) CPUPercent(before *Stats, passed time.Duration) float64 {
	if before == nil || passed <= 0 || s.CPU.Usage.Total < before.CPU.Usage.Total {
		return 0
	}
	return float64(s.CPU.Usage.Total-before.CPU.Usage.Total) / float64(passed.Nanoseconds()) * 100
}

// MemoryPercent is the part of the limit that is used.
func (s *Stats) MemoryPercent() float64 {
	if s.Memory.Usage.Limit == 0 {
		return 0
	}
	return float64(s.Memory.Usage.Usage) / float64(s.Memory.Usage.Limit) * 100
}

func percent(f float64) string { return fmt.Sprintf("%.2f%%", f) }

// FormatSize writes a number of bytes for people, such as 1.5MiB.
func FormatSize(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + "B"
	}
	f := float64(n)
	units := "KMGTPE"
	i := -1
	// What would be shown as 1024.0 belongs to the next unit.
	for f >= 1023.95 && i+1 < len(units) || i < 0 {
		f /= 1024
		i++
	}
	return fmt.Sprintf("%.1f%ciB", f, units[i])
}

// JSON writes s for programs, indented by tabs.
func (s *Stats) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(s, "", "\t")
	return append(b, '\n'), err
}
