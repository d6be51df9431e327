package server

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestKubernetes: the base builds, what it says of the server is a configuration
// that the server takes, and every pod is closed as the guide says.
func TestKubernetes(t *testing.T) {
	base := "../deploy/kubernetes"
	text, err := os.ReadFile(filepath.Join(base, "server.toml"))
	if err != nil {
		t.Fatal(err)
	}
	c := Defaults()
	if err := ParseConfig(text, &c); err != nil {
		t.Fatal(err)
	}
	if err := c.check(); err != nil || c.Storage.Records != inMongoDB || c.Storage.Blobs != inS3 || c.Storage.Direct {
		t.Errorf("%+v %v", c.Storage, err)
	}
	// Servers that share their records share the queue, and the key of what it needs.
	if c.QueueURL == "" || c.QueueCredentials == "" || c.BuildSecrets == "" {
		t.Errorf("each server has a queue or a key of its own: %q %q %q", c.QueueURL, c.QueueCredentials, c.BuildSecrets)
	}
	all := manifests(t, base)
	var kinds []string
	for _, d := range all {
		kind, _ := d["kind"].(string)
		kinds = append(kinds, kind)
		if d["apiVersion"] == nil || at(d, "metadata", "name") == nil {
			t.Errorf("a document without apiVersion or name: %v", d)
		}
		if kind == "Deployment" {
			checkPod(t, at(d, "spec", "template", "spec"))
		}
	}
	for _, kind := range []string{"Namespace", "ServiceAccount", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} {
		if !slices.Contains(kinds, kind) {
			t.Errorf("there is no %s in %v", kind, kinds)
		}
	}
}

// manifests reads what kubectl makes of the base, or else its files.
func manifests(t *testing.T, base string) []map[string]any {
	t.Helper()
	var text []byte
	if _, err := exec.LookPath("kubectl"); err == nil {
		if text, err = exec.Command("kubectl", "kustomize", base).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	} else {
		t.Log("kubectl is not here: the files are read as they are")
		files, err := filepath.Glob(filepath.Join(base, "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if filepath.Base(f) == "kustomization.yaml" {
				continue
			}
			one, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			text = append(append(text, one...), "\n---\n"...)
		}
	}
	var out []map[string]any
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var m map[string]any
		err := d.Decode(&m)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if m != nil {
			out = append(out, m)
		}
	}
}

func at(v any, path ...string) any {
	for _, key := range path {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

func checkPod(t *testing.T, pod any) {
	t.Helper()
	if at(pod, "securityContext", "runAsNonRoot") != true || at(pod, "automountServiceAccountToken") != false {
		t.Error("the pod may run as root, or has a token of the cluster")
	}
	for _, list := range []string{"containers", "initContainers"} {
		items, _ := at(pod, list).([]any)
		if len(items) == 0 {
			t.Errorf("no %s", list)
		}
		for _, c := range items {
			drop, _ := at(c, "securityContext", "capabilities", "drop").([]any)
			if at(c, "securityContext", "allowPrivilegeEscalation") != false || at(c, "securityContext", "readOnlyRootFilesystem") != true || !slices.Contains(drop, any("ALL")) {
				t.Errorf("the container %v is not closed", at(c, "name"))
			}
			if at(c, "resources", "limits", "memory") == nil {
				t.Errorf("the container %v has no limit of memory", at(c, "name"))
			}
		}
	}
}

// TestUnits: systemd understands the units, and thinks them closed.
func TestUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not here")
	}
	for unit, limit := range map[string]string{"singularity-server.service": "20", "singularity-worker.service": "55"} {
		out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold="+limit, "../deploy/systemd/"+unit).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
		if strings.Contains(string(out), "Unknown") || strings.Contains(string(out), "ignoring") {
			t.Errorf("%s: %s", unit, out)
		}
	}
	// The programs are not installed where the units want them.
	dir := t.TempDir()
	files, err := filepath.Glob("../deploy/systemd/*")
	if err != nil || len(files) < 4 {
		t.Fatalf("%q %v", files, err)
	}
	var copies []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		copies = append(copies, filepath.Join(dir, filepath.Base(f)))
		if err := os.WriteFile(copies[len(copies)-1], installed.ReplaceAll(text, []byte("=/bin/true")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// A fault in a unit is a warning to it, not an error.
	if out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, copies...)...).CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

var installed = regexp.MustCompile(`=/usr/bin/singularity[a-z-]*`)
