package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/host"
)

// tryTimeout bounds what is tried in namespaces: a broken mount may hang.
const tryTimeout = 20 * time.Second

func newDoctorCommand(log *action.Log) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "doctor [options]",
		Short: "Tell what this host offers to containers",
		Long: "Look at this host as the calling user sees it: kernel, user namespaces and the switches that forbid them, security modules, subordinate ids, FUSE, " +
			"cgroups, places for temporary files. User namespaces, the overlay file system, FUSE and procfs are really tried, in namespaces that end at once." +
			"\n\nEach row is ok, limited, missing or fatal; with what is not ok comes one line that cures it. The exit status is 1 if no container can start.",
		Example: "  $ singularity doctor\n" +
			"  $ singularity doctor --json",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error { return doctor(c.OutOrStdout(), asJSON) },
	}
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	c.AddCommand(newDoctorMPICommand(), &cobra.Command{
		Use: "try", Short: "Try mounts in the namespaces of this process", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error { return tryMounts(c.OutOrStdout()) },
	})
	return c
}

// doctorRow is host.Row in JSON.
type doctorRow struct {
	Name   string      `json:"name"`
	Status host.Status `json:"status"`
	Found  string      `json:"found"`
	Cure   string      `json:"cure,omitempty"`
}

func doctor(w io.Writer, asJSON bool) error {
	rows := host.Report()
	// What was tried counts more than what was read, and stands behind it.
	at := slices.IndexFunc(rows, func(r host.Row) bool { return r.Name == "security modules" })
	rows = slices.Insert(rows, at, tried()...)
	if err := writeReport(w, rows, asJSON); err != nil {
		return err
	}
	if !canStart(rows) {
		return exitOne(errors.New("no container can start on this host: see the rows marked fatal"))
	}
	return nil
}

func canStart(rows []host.Row) bool {
	return !slices.ContainsFunc(rows, func(r host.Row) bool { return r.Status == host.Fatal })
}

func writeReport(w io.Writer, rows []host.Row, asJSON bool) error {
	if !asJSON {
		return writeDoctor(w, rows)
	}
	doc := struct {
		CanStart bool        `json:"canStart"`
		Rows     []doctorRow `json:"rows"`
	}{CanStart: canStart(rows)}
	for _, r := range rows {
		doc.Rows = append(doc.Rows, doctorRow(r))
	}
	return writeIndented(w, doc)
}

func writeDoctor(w io.Writer, rows []host.Row) error {
	width := 0
	for _, r := range rows {
		width = max(width, len(r.Name))
	}
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "%-*s  %-7s  %s\n", width, r.Name, r.Status, oneLine(r.Found))
		if r.Cure != "" {
			fmt.Fprintf(&b, "%-*s           cure: %s\n", width, "", oneLine(r.Cure))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// tries are what tryMounts tries, in this order, and what each is for.
var tries = []struct {
	name, good, cure string
	try              func(dir string) error
}{
	{"overlay in a namespace", "mounted and written to", "sandboxes get no mount points of their own: use Linux 5.11 or newer, and load the module: sudo modprobe overlay", tryOverlay},
	{"FUSE in a namespace", "mounted", "image files cannot be shown: sudo modprobe fuse, sudo chmod 0666 /dev/fuse", tryFUSE},
	{"procfs in a namespace", "mounted", "the host's /proc is used instead; in another container let it be mounted: docker run --security-opt systempaths=unconfined", tryProc},
}

// tried makes the namespaces of a container and tries mounts in them.
func tried() []host.Row {
	ctx, cancel := context.WithTimeout(context.Background(), tryTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "doctor", "try")
	cmd.Env = []string{"LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	what := "namespaces, tried"
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		what = "user namespace, tried"
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		row := host.Row{Name: what, Status: host.Fatal, Found: err.Error(), Cure: "look for the switch that forbids it in the rows here, or ask an administrator"}
		if f := host.Explain(err); f != nil {
			row.Found, row.Cure = f.Cause, f.Cure
		}
		return []host.Row{row}
	}
	rows := []host.Row{{Name: what, Status: host.OK, Found: "made"}}
	for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		if i == len(tries) {
			break
		}
		t := &tries[i]
		row := host.Row{Name: t.name, Status: host.OK, Found: t.good}
		if line != "ok" {
			row.Status, row.Found, row.Cure = host.Missing, line, t.cure
		}
		rows = append(rows, row)
	}
	return rows
}

// tryMounts runs in new namespaces and writes a line for each of tries: ok, or
// what went wrong.
func tryMounts(w io.Writer) error {
	// Security: nothing is tried in the namespaces of the host.
	if os.Getpid() != 1 {
		return errors.New("this is a part of singularity doctor")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot separate the mounts: %w", err)
	}
	const dir = "/tmp"
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m"); err != nil {
		return fmt.Errorf("cannot mount a tmpfs: %w", err)
	}
	for i := range tries {
		line := "ok"
		if err := tries[i].try(dir); err != nil {
			line = oneLine(err.Error())
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

func tryOverlay(dir string) error {
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(dir+"/"+d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("overlay", dir+"/merged", "overlay", unix.MS_NOSUID|unix.MS_NODEV, "lowerdir="+dir+"/lower,upperdir="+dir+"/upper,workdir="+dir+"/work"); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return os.WriteFile(dir+"/merged/file", []byte("x"), 0o644)
}

func tryFUSE(dir string) error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Mkdir(dir+"/fuse", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("fuse", dir+"/fuse", "fuse", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_RDONLY, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", f.Fd())); err != nil {
		return fmt.Errorf("mount fuse: %w", err)
	}
	return unix.Unmount(dir+"/fuse", unix.MNT_DETACH)
}

func tryProc(dir string) error {
	if err := os.Mkdir(dir+"/proc", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("proc", dir+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount proc: %w", err)
	}
	return nil
}
