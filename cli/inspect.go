package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/sbom"
	"singularity/sif"
)

// inspectOptions are the flags of inspect.
type inspectOptions struct {
	labels, deffile, runscript, startscript, test, environment, helpfile bool

	listApps, json, all, provenance, sbom, trust bool
	app, key                                     string

	log *action.Log // for people
}

func newInspectCommand(log *action.Log) *cobra.Command {
	var o inspectOptions
	c := &cobra.Command{
		Use:   "inspect [options] <image>",
		Short: "Show metadata of an image",
		Long: "Show what an image says about itself: its labels, or whatever the options select. Options can be combined." +
			"\n\nThe image is read, never run. Its author wrote the metadata; only a signature tells who that is (see verify).",
		Example: "  $ singularity inspect debian.sif\n" +
			"  $ singularity inspect --deffile debian.sif\n" +
			"  $ singularity inspect --all debian.sif",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.log = log
			if o.trust {
				return inspectTrust(c, log, args[0], o.json)
			}
			if o.sbom && !o.provenance {
				return writeBill(c.Context(), c.OutOrStdout(), args[0])
			}
			return inspect(c.OutOrStdout(), args[0], o, action.IsTerminal(1))
		},
	}
	f := c.Flags()
	f.BoolVar(&o.all, "all", false, "show everything, as JSON")
	f.StringVar(&o.app, "app", "", "show the `name`d app of the image")
	f.BoolVarP(&o.deffile, "deffile", "d", false, "show the definition file")
	f.BoolVarP(&o.environment, "environment", "e", false, "show the environment scripts")
	f.BoolVarP(&o.helpfile, "helpfile", "H", false, "show the help text")
	f.BoolVarP(&o.json, "json", "j", false, "print JSON")
	f.StringVar(&o.key, "key", "", "check the signature of the provenance by this PEM `file`")
	f.BoolVarP(&o.labels, "labels", "l", false, "show the labels (default)")
	f.BoolVar(&o.listApps, "list-apps", false, "list the apps")
	f.BoolVar(&o.provenance, "provenance", false, "show what a SIF was made of, as JSON")
	f.BoolVarP(&o.runscript, "runscript", "r", false, "show the runscript")
	f.BoolVar(&o.sbom, "sbom", false, "show the list of packages that a SIF carries, as JSON")
	f.BoolVarP(&o.startscript, "startscript", "s", false, "show the startscript")
	f.BoolVarP(&o.test, "test", "t", false, "show the test script")
	f.BoolVar(&o.trust, "trust", false, "say in one sentence what is known here: signer, trust, advisories")
	return c
}

// inspect writes what o selects of the image called path to w, of which
// terminal tells what it is.
func inspect(w io.Writer, path string, o inspectOptions, terminal bool) error {
	im, err := openImage(path)
	if err != nil {
		return fmt.Errorf("Failed to open image %s: %w", path, err)
	}
	defer im.Close()
	if o.provenance {
		return writeProvenance(w, o.log, im, path, o.key)
	}
	meta, err := imageMetadata(im)
	if err != nil {
		return fmt.Errorf("cannot inspect %q: %w", path, err)
	}
	if o.all {
		return writeJSON(w, meta)
	}
	if meta, err = o.pick(meta); err != nil {
		return fmt.Errorf("cannot inspect %q: %w", path, err)
	}
	if o.json {
		return writeJSON(w, meta)
	}
	return writeText(w, o.part(meta), terminal)
}

// writeObject writes an object that must be JSON, safe for a terminal.
func writeObject(w io.Writer, f *sif.File, o sif.Object, path, what string) error {
	data, err := f.ReadAll(o)
	if err != nil {
		return fmt.Errorf("cannot inspect %q: %w", path, err)
	}
	return writeJSONText(w, data, path, what)
}

// writeJSONText writes what must be JSON, safe for a terminal.
func writeJSONText(w io.Writer, data []byte, path, what string) error {
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", "\t"); err != nil {
		return fmt.Errorf("cannot inspect %q: %s is not JSON: %w", path, what, err)
	}
	_, err := io.WriteString(w, strings.TrimRight(escapeJSON(out.String()), "\n")+"\n")
	return err
}

// writeBill writes the bill of materials that the image carries: like the
// provenance, what its author says. An image in OCI form has none by those who
// make such images, so that its files are looked at.
func writeBill(ctx context.Context, w io.Writer, path string) error {
	im, err := openToList(path)
	if err != nil {
		return fmt.Errorf("Failed to open image %s: %w", path, err)
	}
	defer im.Close()
	if o, ok := billObject(im); ok {
		return writeObject(w, im.SIF, o, path, "its bill of materials")
	}
	if !isOCISIF(im) {
		return action.Fatal(fmt.Errorf("cannot inspect %q: it has no bill of materials", path), "singularity sbom makes one from the files in the image")
	}
	inv, err := inventoryOf(ctx, im)
	if err != nil {
		return fmt.Errorf("cannot inspect %q: %w", path, err)
	}
	return sbom.Encode(w, inv, billSubject(im, path), sif.SBOMCycloneDXJSON)
}

// pick returns the part of m that o selects.
func (o *inspectOptions) pick(m *metadata) (*metadata, error) {
	if !o.deffile && !o.runscript && !o.startscript && !o.test && !o.environment && !o.helpfile && !o.listApps {
		o.labels = true
	}
	out := &metadata{}
	if o.deffile {
		out.Deffile = m.Deffile
	}
	if o.listApps {
		out.Apps = map[string]*appMetadata{}
		for name := range m.Apps {
			out.Apps[name] = &appMetadata{}
		}
	}
	if o.app == "" {
		out.appMetadata = o.pickApp(&m.appMetadata)
		return out, nil
	}
	app := m.Apps[o.app]
	if app == nil {
		return nil, exitOne(fmt.Errorf("it has no app %q", o.app))
	}
	if out.Apps == nil {
		out.Apps = map[string]*appMetadata{}
	}
	picked := o.pickApp(app)
	out.Apps[o.app] = &picked
	return out, nil
}

func (o *inspectOptions) pickApp(m *appMetadata) appMetadata {
	var out appMetadata
	if o.labels {
		out.Labels = m.Labels
	}
	if o.runscript {
		out.Runscript = m.Runscript
	}
	if o.startscript {
		out.Startscript = m.Startscript
	}
	if o.test {
		out.Test = m.Test
	}
	if o.environment {
		out.Environment = m.Environment
	}
	if o.helpfile {
		out.Helpfile = m.Helpfile
	}
	return out
}

// part returns m as text shows it: the selected app stands for the image.
func (o *inspectOptions) part(m *metadata) *metadata {
	out := *m
	if o.app != "" {
		out.appMetadata = *m.Apps[o.app]
	}
	if !o.listApps {
		out.Apps = nil
	}
	return &out
}

// writeText writes m for people: scripts as they are, labels line by line.
//
// Security: the author of an image must not drive the terminal of who looks at
// it. Scripts that go to a file keep every byte.
func writeText(w io.Writer, m *metadata, terminal bool) error {
	var b strings.Builder
	for _, name := range sortedKeys(m.Apps) {
		b.WriteString(action.Printable(name) + "\n")
	}
	for _, script := range []string{m.Deffile, m.Runscript, m.Startscript, m.Test, m.Helpfile} {
		if script != "" {
			b.WriteString(forOutput(script, terminal))
			if !strings.HasSuffix(script, "\n") {
				b.WriteString("\n")
			}
		}
	}
	for _, name := range sortedKeys(m.Environment) {
		b.WriteString("=== " + action.Printable(name) + " ===\n" + forOutput(m.Environment[name], terminal) + "\n\n")
	}
	for _, key := range sortedKeys(m.Labels) {
		b.WriteString(action.Printable(key) + ": " + action.Printable(m.Labels[key]) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func forOutput(s string, terminal bool) string {
	if terminal {
		return action.Printable(s)
	}
	return s
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
