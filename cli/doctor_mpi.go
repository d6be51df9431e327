package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/host"
	"singularity/image"
)

// Limits of the search for MPI.
const (
	maxMPIDirs    = 512
	maxMPILibrary = 64 << 20
)

// The kinds of libraries that decide whether ranks find each other.
const (
	openMPI  = "Open MPI"
	mpichABI = "MPICH ABI" // MPICH, Intel MPI, MVAPICH, Cray MPICH: one binary interface
	pmixLib  = "PMIx"
	pmi1Lib  = "PMI-1"
	pmi2Lib  = "PMI-2"
)

// mpiLibrary is a library that was found.
type mpiLibrary struct{ kind, soname, version, dir string }

func (l mpiLibrary) String() string {
	s := l.kind
	if l.version != "" {
		s += " " + l.version
	}
	return s + " (" + l.dir + "/" + l.soname + ")"
}

// mpiTree is where MPI is looked for: an image, or this host.
type mpiTree interface {
	ReadDir(dir string) ([]string, error)
	ReadFile(name string, limit int64) ([]byte, error)
}

// hostTree is the file system of this host.
type hostTree struct{}

func (hostTree) ReadDir(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names, err
}

func (hostTree) ReadFile(name string, limit int64) ([]byte, error) {
	f, _, err := openRegular(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

func newDoctorMPICommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "mpi [options] <image>",
		Short: "Compare MPI in an image with that of this host",
		Long: "Look for the libraries of MPI and of process management (PMI, PMIx) in an image and on this host, and at what the launcher of the job put into the " +
			"environment, and tell whether ranks in containers would find each other. Run it where the ranks run, under srun or mpirun." +
			"\n\nThe image is read, never run. The exit status is 1 if ranks would start as so many jobs of one rank.",
		Example: "  $ srun --mpi=pmix -n1 singularity doctor mpi solver.sif",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return doctorMPI(c.OutOrStdout(), args[0], asJSON)
		},
	}
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return c
}

func doctorMPI(w io.Writer, name string, asJSON bool) error {
	im, err := openImage(name)
	if err != nil {
		return action.Fatal(fmt.Errorf("Failed to open image %s: %w", name, err), "")
	}
	defer im.Close()
	var files image.Files
	if files, _, err = im.Files(); err != nil {
		return fmt.Errorf("cannot read the files of %q: %w", name, err)
	}
	rows := judgeMPI(findMPI(files), findMPI(hostTree{}), os.Getenv)
	if err := writeReport(w, rows, asJSON); err != nil {
		return err
	}
	if slices.ContainsFunc(rows, func(r host.Row) bool { return r.Status == host.Missing }) {
		return exitOne(errors.New("ranks in this image would not find each other: see the rows marked missing"))
	}
	return nil
}

// mpiDirs lists the directories where installations of MPI keep libraries.
func mpiDirs(t mpiTree) []string {
	dirs := []string{"/usr/lib64", "/usr/lib", "/usr/local/lib", "/usr/local/lib64", "/lib64", "/lib", "/.singularity.d/libs"}
	below := func(dir string, want func(string) bool, subs ...string) {
		names, _ := t.ReadDir(dir)
		for _, n := range names {
			for _, s := range subs {
				if want(n) && len(dirs) < maxMPIDirs {
					dirs = append(dirs, path.Join(dir, n, s))
				}
			}
		}
	}
	arch := func(n string) bool { return strings.Contains(n, "-linux-gnu") }
	mpi := func(n string) bool {
		return strings.HasPrefix(n, "openmpi") || strings.HasPrefix(n, "mpich") || strings.HasPrefix(n, "mvapich") || strings.HasPrefix(n, "pmix")
	}
	below("/usr/lib", arch, "", "openmpi/lib", "mpich/lib", "pmix2/lib", "pmix/lib")
	below("/usr/lib64", mpi, "lib")
	below("/usr/lib", mpi, "lib")
	any := func(string) bool { return true }
	below("/opt", any, "lib", "lib64")
	below("/usr/local", any, "lib")
	return dirs
}

// The names of libraries: stem, version of the interface, and the rest of the
// version.
var mpiName = regexp.MustCompile(`^(libmpi|libmpich|libpmix|libpmi|libpmi2)\.so\.([0-9]+)((?:\.[0-9]+)*)$`)

// pmixVersion is in every library of OpenPMIx.
var pmixVersion = regexp.MustCompile(`OpenPMIx ([0-9]+\.[0-9]+\.[0-9]+)`)

// findMPI looks for the libraries of both families. Of several with one name,
// the first counts.
func findMPI(t mpiTree) []mpiLibrary {
	var found []mpiLibrary
	for _, dir := range mpiDirs(t) {
		names, err := t.ReadDir(dir)
		if err != nil {
			continue
		}
		open := slices.ContainsFunc(names, func(n string) bool {
			return strings.HasPrefix(n, "libopen-pal.so") || strings.HasPrefix(n, "libopen-rte.so")
		})
		for _, n := range names {
			m := mpiName.FindStringSubmatch(n)
			if m == nil {
				continue
			}
			l := mpiLibrary{soname: m[1] + ".so." + m[2], dir: dir}
			switch m[1] {
			case "libmpi", "libmpich":
				if l.kind = mpichABI; open && m[1] == "libmpi" {
					l.kind, l.version = openMPI, openMPIRelease(m[2], m[3])
				}
			case "libpmix":
				l.kind = pmixLib
			case "libpmi":
				l.kind = pmi1Lib
			case "libpmi2":
				l.kind = pmi2Lib
			}
			at := slices.IndexFunc(found, func(f mpiLibrary) bool { return f.kind == l.kind && f.soname == l.soname })
			switch {
			case at < 0:
				if l.kind == pmixLib {
					l.version = pmixRelease(t, dir+"/"+n)
				}
				found = append(found, l)
			case found[at].version == "":
				found[at].version = l.version
			}
		}
	}
	return found
}

// openMPIRelease tells the release series by the version of libmpi.
func openMPIRelease(major, rest string) string {
	f := strings.Split(rest, ".")
	if major != "40" || len(f) < 2 {
		return ""
	}
	switch f[1] {
	case "0", "00":
		return "3.0"
	case "10":
		return "3.1"
	case "20":
		return "4.0"
	case "30":
		return "4.1"
	case "40":
		return "5.0"
	}
	return ""
}

func pmixRelease(t mpiTree, name string) string {
	b, err := t.ReadFile(name, maxMPILibrary)
	if err != nil {
		return ""
	}
	if m := pmixVersion.FindSubmatch(b); m != nil {
		return string(m[1])
	}
	return ""
}

func ofKind(list []mpiLibrary, kinds ...string) []mpiLibrary {
	var out []mpiLibrary
	for _, l := range list {
		if slices.Contains(kinds, l.kind) {
			out = append(out, l)
		}
	}
	return out
}

func describeMPI(list []mpiLibrary, none string) string {
	var out []string
	for _, l := range list {
		out = append(out, l.String())
	}
	if len(out) == 0 {
		return none
	}
	return strings.Join(out, ", ")
}

// judgeMPI compares what is inside with what is outside and what the launcher
// set.
func judgeMPI(inside, outside []mpiLibrary, getenv func(string) string) []host.Row {
	mpi := ofKind(inside, openMPI, mpichABI)
	rows := []host.Row{{Name: "MPI in the image", Status: host.OK, Found: describeMPI(mpi, "")}}
	if len(mpi) == 0 {
		rows[0] = host.Row{Name: "MPI in the image", Status: host.Missing, Found: "none in the usual directories", Cure: "install an MPI library in the image, below /usr, /usr/local or /opt"}
	}
	outer := ofKind(outside, openMPI, mpichABI)
	rows = append(rows, host.Row{Name: "MPI on the host", Status: host.OK, Found: describeMPI(outer, "none in the usual directories")})
	if len(mpi) > 0 && len(outer) > 0 {
		rows = append(rows, judgeABI(mpi, outer))
	}
	managers := []string{pmixLib, pmi1Lib, pmi2Lib}
	rows = append(rows,
		host.Row{Name: "PMI in the image", Status: host.OK, Found: describeMPI(ofKind(inside, managers...), "no library of its own")},
		host.Row{Name: "PMI on the host", Status: host.OK, Found: describeMPI(ofKind(outside, managers...), "no library of its own")})
	rows = append(rows, judgePMI(inside, getenv))
	for _, v := range []string{"PMIX_SERVER_TMPDIR", "PMIX_SYSTEM_TMPDIR"} {
		if dir := getenv(v); dir != "" {
			rows = append(rows, judgeDir(v, dir))
		}
	}
	return rows
}

func judgeABI(mpi, outer []mpiLibrary) host.Row {
	for _, i := range mpi {
		for _, o := range outer {
			if i.kind != o.kind || i.soname != o.soname && i.kind == openMPI {
				continue
			}
			row := host.Row{Name: "MPI interface", Status: host.OK, Found: "the same inside and outside: " + i.kind + ", " + i.soname}
			if i.version != o.version {
				row.Found += "; releases differ: " + i.version + " inside, " + o.version + " outside"
			}
			return row
		}
	}
	return host.Row{Name: "MPI interface", Status: host.Limited, Found: "not the same: " + mpi[0].kind + " inside, " + outer[0].kind + " outside",
		Cure: "do not bind the host's MPI into the container, and start ranks by the batch system (srun --mpi=pmix) and not by the host's mpirun"}
}

// judgePMI tells whether the MPI inside understands the launcher outside.
func judgePMI(inside []mpiLibrary, getenv func(string) string) host.Row {
	row := host.Row{Name: "launcher", Status: host.OK}
	pmix := ofKind(inside, pmixLib)
	open := ofKind(inside, openMPI)
	switch {
	case getenv("PMIX_RANK") != "" || getenv("PMIX_NAMESPACE") != "":
		row.Found = "PMIx " + getenv("PMIX_VERSION")
		switch {
		case slices.ContainsFunc(pmix, func(l mpiLibrary) bool { return l.soname != "libpmix.so.1" && !strings.HasPrefix(l.version, "1.") }):
			row.Found += ", which " + pmix[0].String() + " in the image speaks"
		case len(pmix) > 0:
			row.Status, row.Found = host.Missing, row.Found+"; "+pmix[0].String()+" in the image is too old for it"
			row.Cure = "use PMIx 2.1 or newer in the image"
		case len(open) > 0:
			row.Status, row.Found = host.Limited, row.Found+"; the image has no PMIx library but the one that Open MPI may carry in itself"
			row.Cure = "if ranks start alone, install libpmix2 in the image and an Open MPI that uses it"
		default:
			row.Status, row.Found = host.Missing, row.Found+", which no library in the image speaks"
			row.Cure = "start with srun --mpi=pmi2, or use an image whose MPI is built with PMIx"
		}
	case getenv("PMI_RANK") != "" || getenv("PMI_FD") != "":
		row.Found = "PMI-1 or PMI-2"
		switch {
		case len(ofKind(inside, mpichABI)) > 0:
			row.Found += ", which the MPICH family speaks by itself"
		case len(ofKind(inside, pmi1Lib, pmi2Lib)) == 0:
			row.Status, row.Found = host.Missing, row.Found+", and the image has no library for it"
			row.Cure = "start with srun --mpi=pmix"
		}
	case getenv("SLURM_PROCID") != "" && getenv("SLURM_STEP_ID") != "":
		row.Status, row.Found = host.Missing, "a step of Slurm without PMI"
		row.Cure = "start with srun --mpi=pmix (srun --mpi=list shows what this cluster has)"
	case getenv("SLURM_JOB_ID") != "":
		row.Status, row.Found = host.Limited, "a job of Slurm, but no step of it"
		row.Cure = "ask where the ranks run: srun --mpi=pmix -n1 singularity doctor mpi IMAGE"
	default:
		row.Found = "none around this process: only libraries were compared"
	}
	return row
}

// judgeDir looks at a directory with sockets of the launcher.
func judgeDir(name, dir string) host.Row {
	row := host.Row{Name: name, Status: host.OK, Found: dir + ", shown by default; with --contain add -B " + dir}
	for _, shown := range []string{"/tmp", "/var/tmp"} {
		if rel, err := filepath.Rel(shown, dir); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return row
		}
	}
	row.Status, row.Found, row.Cure = host.Limited, dir+" is not shown in containers by default", "add -B "+dir
	return row
}
