package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// row is one line of the table.
type row struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit,omitempty"` // of ours and the peer's: ms or MB
	Ours   *spread `json:"ours,omitempty"`
	Peer   *spread `json:"peer,omitempty"`
	Result float64 `json:"result,omitempty"` // the ratio, or the median where there is no peer
	Best   float64 `json:"best,omitempty"`   // the ratio of the shortest runs, or the least
	Goal   float64 `json:"goal,omitempty"`   // 0: none
	Met    string  `json:"met,omitempty"`
	Note   string  `json:"note,omitempty"`
}

// spread is a series of measurements.
type spread struct {
	Runs   int       `json:"runs"`
	Min    float64   `json:"min"`
	Median float64   `json:"median"`
	All    []float64 `json:"all"`
}

func newSpread(list []float64) *spread {
	if len(list) == 0 {
		return nil
	}
	return &spread{Runs: len(list), Min: slices.Min(list), Median: median(list), All: list}
}

// report is what the files hold.
type report struct {
	Date   string            `json:"date"`
	Commit string            `json:"commit"`
	CPU    string            `json:"cpu"`
	Cores  int               `json:"cores"`
	Kernel string            `json:"kernel"`
	Load   [2]string         `json:"load"` // at the begin and at the end
	Quick  bool              `json:"quick"`
	Peers  map[string]string `json:"peers"`
	Rows   []row             `json:"rows"`
}

// compare adds a row with a peer. The result is the median of the ratios of
// runs that stood side by side.
func (b *bench) compare(r row, ours, peer []float64) {
	r.Ours, r.Peer = newSpread(ours), newSpread(peer)
	r.Result = median(ratios(ours, peer))
	if r.Ours != nil && r.Peer != nil {
		r.Best = r.Ours.Min / r.Peer.Min
	}
	b.add(r)
}

// more adds a row whose result is what ours takes more than the peer.
func (b *bench) more(r row, ours, peer []float64) {
	r.Ours, r.Peer = newSpread(ours), newSpread(peer)
	var list []float64
	for i := range min(len(ours), len(peer)) {
		list = append(list, ours[i]-peer[i])
	}
	r.Result = median(list)
	if r.Ours != nil && r.Peer != nil {
		r.Best = r.Ours.Min - r.Peer.Min
	}
	b.add(r)
}

// absolute adds a row whose goal is an amount.
func (b *bench) absolute(r row, list []float64) {
	r.Ours = newSpread(list)
	r.Result = median(list)
	if r.Ours != nil {
		r.Best = r.Ours.Min
	}
	b.add(r)
}

func (b *bench) add(r row) {
	if r.Goal > 0 {
		r.Met = verdict(r.Result <= r.Goal)
	}
	b.report.Rows = append(b.report.Rows, r)
	say("%s: %.3g, best %.3g (goal %s) %s", r.Name, r.Result, r.Best, goal(r.Goal), r.Met)
}

// skip adds a row that could not be measured, and why.
func (b *bench) skip(name, why string) {
	b.report.Rows = append(b.report.Rows, row{Name: name, Met: "skipped", Note: why})
	say("%s: skipped: %s", name, why)
}

func (r *report) begin(b *bench) {
	r.Date = time.Now().UTC().Format("2006-01-02")
	r.Quick = b.quick
	r.CPU = "unknown processor"
	if m := regexp.MustCompile(`(?m)^model name\s*:\s*(.+)$`).FindStringSubmatch(readAll("/proc/cpuinfo")); m != nil {
		r.CPU = m[1]
	}
	r.Cores = runtime.NumCPU()
	r.Kernel = strings.TrimSpace(readAll("/proc/sys/kernel/osrelease"))
	r.Load[0] = load()
	if out, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		r.Commit = strings.TrimSpace(string(out))
	}
	r.Peers = map[string]string{}
	for name, args := range map[string][]string{"bwrap": {"--version"}, "squashfuse_ll": {"--help"}, "mksquashfs": {"-version"}, "tar2sqfs": {"--version"}, "openssl": {"version"}} {
		if b.peers[name] == "" {
			continue
		}
		// Some tell their version with a failing exit status.
		out, _ := exec.Command(b.peers[name], args...).CombinedOutput()
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		r.Peers[name], _, _ = strings.Cut(first, "  ")
	}
}

func (r *report) end() { r.Load[1] = load() }

func load() string {
	f := strings.Fields(readAll("/proc/loadavg"))
	return strings.Join(f[:min(3, len(f))], " ")
}

func goal(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.4g", v)
}

func (s *spread) cell(unit string) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%.4g / %.4g %s", s.Min, s.Median, unit)
}

// markdown is the table, with what one must know to read it.
func (r *report) markdown() string {
	var t strings.Builder
	fmt.Fprintf(&t, "# Measurements of %s\n\n", r.Date)
	fmt.Fprintf(&t, "%s, %d cores, Linux %s; load %s at the begin, %s at the end; commit %s.\n", r.CPU, r.Cores, r.Kernel, r.Load[0], r.Load[1], r.Commit)
	var peers []string
	for _, v := range r.Peers {
		peers = append(peers, v)
	}
	slices.Sort(peers)
	fmt.Fprintf(&t, "Peers: %s.\n\n", strings.Join(peers, "; "))
	fmt.Fprintf(&t, "Both sides ran by turns. Result: the median of the ratios of neighbouring runs; for a row without a peer, the median. Best: the ratio of the shortest runs, which other load disturbs least; goals are judged by the result.\n")
	if r.Quick {
		fmt.Fprintf(&t, "A quick run: too few to judge by.\n")
	}
	fmt.Fprintf(&t, "\n| measurement | ours, min / median | peer, min / median | runs | result | best | goal | met |\n|---|---|---|---|---|---|---|---|\n")
	for _, w := range r.Rows {
		name, result, best, runs := w.Name, "-", "-", "-"
		if w.Note != "" {
			name += " (" + strings.ReplaceAll(w.Note, "|", "/") + ")"
		}
		if w.Ours != nil {
			result, best, runs = fmt.Sprintf("%.3g", w.Result), fmt.Sprintf("%.3g", w.Best), fmt.Sprint(w.Ours.Runs)
		}
		fmt.Fprintf(&t, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", name, w.Ours.cell(w.Unit), w.Peer.cell(w.Unit), runs, result, best, goal(w.Goal), w.Met)
	}
	t.WriteString("\n" + r.verdicts())
	return t.String()
}

// verdicts counts the goals, and names those that were not met and the rows
// that were not measured.
func (r *report) verdicts() string {
	var met int
	var missed, skipped []string
	for _, w := range r.Rows {
		switch w.Met {
		case "yes":
			met++
		case "NO":
			missed = append(missed, w.Name)
		case "skipped":
			skipped = append(skipped, w.Name)
		}
	}
	text := fmt.Sprintf("Goals met: %d of %d.\n", met, met+len(missed))
	if len(missed) > 0 {
		text += "Not met: " + strings.Join(missed, "; ") + ".\n"
	}
	if len(skipped) > 0 {
		text += "Not measured: " + strings.Join(skipped, "; ") + ".\n"
	}
	return text
}

var notWord = regexp.MustCompile(`[^a-z0-9]+`)

// save writes the table and the figures to dir.
func (r *report) save(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cpu := strings.Trim(notWord.ReplaceAllString(strings.ToLower(strings.NewReplacer("(R)", "", "(TM)", "").Replace(r.CPU)), "-"), "-")
	base := filepath.Join(dir, fmt.Sprintf("%s-%s-%d", r.Date, cpu, r.Cores))
	if r.Quick {
		base += "-quick"
	}
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(base+".json", append(text, '\n'), 0o644); err != nil {
		return err
	}
	say("results are in %s.md", base)
	return os.WriteFile(base+".md", []byte(r.markdown()), 0o644)
}
