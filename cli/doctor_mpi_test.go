package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"singularity/host"
)

func TestJudgeMPI(t *testing.T) {
	open := mpiLibrary{openMPI, "libmpi.so.40", "4.1", "/l"}
	mpich := mpiLibrary{mpichABI, "libmpich.so.12", "", "/l"}
	intel := mpiLibrary{mpichABI, "libmpi.so.12", "", "/l"}
	pmix := mpiLibrary{pmixLib, "libpmix.so.2", "4.2.2", "/l"}
	old := mpiLibrary{pmixLib, "libpmix.so.2", "1.2.5", "/l"}
	pmi2 := mpiLibrary{pmi2Lib, "libpmi2.so.0", "", "/l"}
	for _, c := range []struct {
		name            string
		inside, outside []mpiLibrary
		env             string
		row             string
		status          host.Status
		found           string
	}{
		{"nothing", nil, nil, "", "MPI in the image", host.Missing, "none"},
		{"no launcher", []mpiLibrary{open}, nil, "", "launcher", host.OK, "none around"},
		{"pmix", []mpiLibrary{open, pmix}, nil, "PMIX_RANK=0 PMIX_VERSION=3.2.3", "launcher", host.OK, "PMIx 3.2.3, which PMIx 4.2.2"},
		{"old pmix", []mpiLibrary{open, old}, nil, "PMIX_RANK=0", "launcher", host.Missing, "too old"},
		{"pmix inside Open MPI", []mpiLibrary{open}, nil, "PMIX_NAMESPACE=x", "launcher", host.Limited, "may carry"},
		{"pmix and MPICH", []mpiLibrary{mpich}, nil, "PMIX_RANK=0", "launcher", host.Missing, "no library in the image speaks"},
		{"pmi and MPICH", []mpiLibrary{mpich}, nil, "PMI_RANK=0", "launcher", host.OK, "by itself"},
		{"pmi and Open MPI", []mpiLibrary{open, pmix}, nil, "PMI_FD=3", "launcher", host.Missing, "no library for it"},
		{"pmi2 and Open MPI", []mpiLibrary{open, pmi2}, nil, "PMI_RANK=0", "launcher", host.OK, "PMI-2"},
		{"step without", []mpiLibrary{open}, nil, "SLURM_JOB_ID=1 SLURM_PROCID=0 SLURM_STEP_ID=0", "launcher", host.Missing, "without PMI"},
		{"job only", []mpiLibrary{open}, nil, "SLURM_JOB_ID=1", "launcher", host.Limited, "no step"},
		{"same interface", []mpiLibrary{mpich}, []mpiLibrary{intel}, "", "MPI interface", host.OK, "the same"},
		{"other interface", []mpiLibrary{open}, []mpiLibrary{intel}, "", "MPI interface", host.Limited, "Open MPI inside, MPICH ABI outside"},
		{"other release", []mpiLibrary{open}, []mpiLibrary{{openMPI, "libmpi.so.40", "5.0", "/l"}}, "", "MPI interface", host.OK, "4.1 inside, 5.0 outside"},
		{"sockets", []mpiLibrary{open}, nil, "PMIX_SERVER_TMPDIR=/tmp/pmix.1", "PMIX_SERVER_TMPDIR", host.OK, "--contain"},
		{"hidden sockets", []mpiLibrary{open}, nil, "PMIX_SERVER_TMPDIR=/var/spool/slurmd/pmix.1", "PMIX_SERVER_TMPDIR", host.Limited, "not shown"},
		{"neighbour of /tmp", []mpiLibrary{open}, nil, "PMIX_SERVER_TMPDIR=/tmpfs", "PMIX_SERVER_TMPDIR", host.Limited, "not shown"},
	} {
		env := map[string]string{}
		for _, v := range strings.Fields(c.env) {
			k, v, _ := strings.Cut(v, "=")
			env[k] = v
		}
		ok := false
		for _, r := range judgeMPI(c.inside, c.outside, func(k string) string { return env[k] }) {
			if r.Status != host.OK && r.Cure == "" {
				t.Errorf("%s: no cure in %+v", c.name, r)
			}
			if r.Name == c.row {
				ok = r.Status == c.status && strings.Contains(r.Found, c.found)
				if !ok {
					t.Errorf("%s: %+v", c.name, r)
				}
			}
		}
		if !ok {
			t.Errorf("%s: no row %s as wanted", c.name, c.row)
		}
	}
}

// TestDoctorMPIDebian reads the packages of Debian, unpacked into a sandbox.
func TestDoctorMPIDebian(t *testing.T) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("needs apt-get")
	}
	dir, root := t.TempDir(), t.TempDir()
	get := exec.Command("apt-get", "download", "libopenmpi3", "libpmix2", "libpmi2-0")
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		t.Skipf("needs Debian's packages: %v: %s", err, out)
	}
	debs, _ := filepath.Glob(dir + "/*.deb")
	for _, d := range debs {
		if out, err := exec.Command("dpkg", "-x", d, root).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, v := range os.Environ() {
		if k, _, _ := strings.Cut(v, "="); strings.HasPrefix(k, "PMI") || strings.HasPrefix(k, "SLURM") {
			t.Setenv(k, "")
		}
	}
	out, messages, code := call("doctor", "mpi", root)
	if code != 0 || messages != "" || !strings.Contains(out, "Open MPI 4.1 (") || !strings.Contains(out, "PMIx 4.2.2 (") || !strings.Contains(out, "PMI-2 (") {
		t.Errorf("status %d, %s\n%s", code, messages, out)
	}
	t.Setenv("PMIX_RANK", "0")
	if out, _, code := call("doctor", "mpi", root); code != 0 || !strings.Contains(out, "in the image speaks") {
		t.Errorf("status %d\n%s", code, out)
	}
	if out, messages, code := call("doctor", "mpi", writeTree(t, nil)); code != 1 || !strings.Contains(messages, "would not find each other") {
		t.Errorf("empty image: status %d, %s\n%s", code, messages, out)
	}
}
