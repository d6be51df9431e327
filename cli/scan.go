package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/advisory"
	"singularity/catalog"
	"singularity/conf"
	"singularity/image"
	"singularity/sbom"
	"singularity/sif"
	"singularity/trustline"
)

// scanOptions are the flags of scan.
type scanOptions struct {
	advisories, vex []string
	sbom            string // a bill of materials in place of an image
	json, sarif     bool
	all             bool // findings that people ignore too
	running         bool // the images of containers that run here, by the records in spool
	spool, id       string
	show, failOn    string
	maxAge          time.Duration
	// blockList is the list of blocked images to bring up to date, block the severity from
	// which on an image is blocked, when grace is over.
	blockList, block string
	grace            time.Duration
}

func newScanCommand(log *action.Log) *cobra.Command {
	var o scanOptions
	c := &cobra.Command{
		Use:   "scan [options] <image>...",
		Short: "List known faults of the packages in an image",
		Long: "Compare the packages of an image with advisories in OSV form that lie on this machine. Nothing is fetched and nothing of the image is run. " +
			"Where the image carries a bill of materials under a signature that was made with it, see inspect --sbom; scan always looks at the files themselves." +
			"\n\nWithout --advisories, the directories ~/.singularity/advisories and LOCALSTATEDIR/singularity/advisories are used (see advisories)." +
			"\n\nThe exit status is 0 if nothing was found, 11 if the worst fault is low or of unknown severity, 12 medium, 13 high, 14 critical, and 255 if the scan failed. " +
			"--fail-on makes it 0 below a severity. Faults that --vex declares harmless do not count." +
			"\n\nWith --running, the images of the containers that run on this host are looked at, as the records of runs tell (see runs); root sees those of all users." +
			"\n\nWith --block-list, nothing is listed: the file, which 'blocked images' of singularity.conf can name, is told which of the images have a fault of the level --block or above, and so do not run on this host when --grace is over. " +
			"Lines about other images stay, and an image that is in the file keeps its date; the exit status is 0 if all images could be looked at.",
		Example: "  $ singularity scan debian.sif\n" +
			"  $ singularity scan --fail-on high --json debian.sif\n" +
			"  $ singularity scan --advisories osv.zip --sarif debian.sif > report.sarif\n" +
			"  $ sudo singularity scan --running --id CVE-2026-1234\n" +
			"  $ sudo singularity scan --block-list /etc/singularity/blocked \\\n" +
			"      --block critical --grace 336h /srv/images/*.sif",
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(args); err != nil {
				return usageError(c, err)
			}
			return scan(c, log, &o, args)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&o.advisories, "advisories", nil, "directory or archive of advisories in OSV form, in place of the usual `path`s")
	f.StringArrayVar(&o.vex, "vex", nil, "OpenVEX `file` that says which faults do not count")
	f.StringVar(&o.sbom, "sbom", "", "look at this bill of materials (CycloneDX or SPDX `file`, JSON), not at an image")
	f.BoolVarP(&o.json, "json", "j", false, "print JSON")
	f.BoolVar(&o.sarif, "sarif", false, "print SARIF 2.1.0, for tools that show findings in code")
	f.BoolVar(&o.all, "all", false, "show faults too that --vex declares harmless")
	f.StringVar(&o.show, "severity", "unknown", "show faults of this `level` and above: unknown, negligible, low, medium, high, critical")
	f.StringVar(&o.failOn, "fail-on", "unknown", "exit status 0 if the worst fault is below this `level`; never for always")
	f.BoolVar(&o.running, "running", false, "look at the images of all containers that run on this host")
	f.StringVar(&o.spool, "spool", "", "with --running: `directory` of records of runs")
	f.StringVar(&o.id, "id", "", "only the fault with this `name`, such as CVE-2026-1234")
	f.StringVar(&o.blockList, "block-list", "", "bring the list of blocked images in this `file` up to date")
	f.StringVar(&o.block, "block", "", "with --block-list: `level` from which on an image is blocked")
	f.DurationVar(&o.grace, "grace", 0, "with --block-list: `duration` until an image that is new in it is blocked (336h)")
	f.DurationVar(&o.maxAge, "max-age", 0, "fail if the newest advisory is older than this `duration` (72h)")
	return c
}

func (o *scanOptions) check(args []string) error {
	if _, ok := advisory.ParseLevel(o.show); !ok {
		return fmt.Errorf("--severity %q is no level", o.show)
	}
	if _, ok := advisory.ParseLevel(o.failOn); !ok && o.failOn != "never" {
		return fmt.Errorf("--fail-on %q is no level", o.failOn)
	}
	if err := o.checkBlockList(args); err != nil {
		return err
	}
	switch {
	case o.blockList != "":
		return nil
	case len(args) > 1:
		return errors.New("several images need --block-list")
	case o.json && o.sarif:
		return errors.New("--json and --sarif exclude each other")
	case o.running && (o.sarif || o.all || o.sbom != "" || len(args) > 0):
		return errors.New("--running is about the containers of this host: it excludes an image, --sbom, --sarif and --all")
	case o.spool != "" && !o.running:
		return errors.New("--spool needs --running")
	case o.running:
		return nil
	case o.sbom == "" && len(args) == 0:
		return errors.New("an image or --sbom is needed")
	case o.sbom != "" && len(args) > 0:
		return errors.New("either an image or --sbom is looked at, not both")
	}
	return nil
}

// scanReport is the output of scan --json.
type scanReport struct {
	Image      string             `json:"image"`
	Digest     string             `json:"digest,omitempty"` // of the file, sha256:
	Distro     sbom.Distro        `json:"distro"`
	Packages   int                `json:"packages"`
	Gaps       []string           `json:"gaps,omitempty"`
	Advisories advisory.Info      `json:"advisories"`
	Counts     map[string]int     `json:"counts"`
	Findings   []advisory.Finding `json:"findings"`
	Ignored    int                `json:"ignored"`
	Trust      string             `json:"trust,omitempty"` // all that is known of the image, in one sentence

	worst advisory.Level
	any   bool
}

func scan(c *cobra.Command, log *action.Log, o *scanOptions, args []string) error {
	paths, err := advisoryPaths(o.advisories)
	if err != nil {
		return err
	}
	db, err := advisory.Load(c.Context(), paths...)
	if err != nil {
		return action.Fatal(err, "give a directory or archive of records in OSV form with --advisories")
	}
	info := db.Info()
	if o.maxAge > 0 && (info.Newest.Year() < 2000 || time.Since(info.Newest) > o.maxAge) {
		return action.Fatal(fmt.Errorf("the newest advisory is of %s", newest(info)), "bring the advisories up to date (singularity advisories update)")
	}
	if o.running {
		return o.scanRunning(c.Context(), c.OutOrStdout(), log, db)
	}
	if o.blockList != "" {
		return o.writeBlockList(c.Context(), c.OutOrStdout(), log, db, args)
	}
	r := &scanReport{Advisories: info, Counts: map[string]int{}, Findings: []advisory.Finding{}}
	inv, trust, err := o.inventory(c.Context(), log, r, args)
	if err != nil {
		return err
	}
	r.Distro, r.Packages, r.Gaps = inv.Distro, len(inv.Packages), inv.Gaps
	list, err := advisory.NewMatcher(db).Match(c.Context(), inv)
	if err != nil {
		return err
	}
	if err := o.applyVEX(list, r.Digest); err != nil {
		return err
	}
	if trust != nil {
		trust.Advisories = advisoriesOf(list, info, inv)
		r.Trust = trust.Line().String()
	}
	show, _ := advisory.ParseLevel(o.show)
	for _, f := range list {
		if o.id != "" && !f.Has(o.id) {
			continue
		}
		if f.Ignored != "" {
			r.Ignored++
		} else {
			r.Counts[f.Level.String()]++
			r.worst, r.any = max(r.worst, f.Level), true
		}
		if f.Level >= show && (f.Ignored == "" || o.all) {
			r.Findings = append(r.Findings, f)
		}
	}
	if err := o.write(c.OutOrStdout(), log, r); err != nil {
		return err
	}
	return o.status(r)
}

// status is the exit status by severity.
func (o *scanOptions) status(r *scanReport) error {
	limit, ok := advisory.ParseLevel(o.failOn)
	if !r.any || !ok || r.worst < limit {
		return nil
	}
	return exitStatus(11 + max(0, int(r.worst)-int(advisory.Low)))
}

// inventory lists what o or args name, and tells what is known of the signatures
// of an image.
func (o *scanOptions) inventory(ctx context.Context, log *action.Log, r *scanReport, args []string) (*sbom.Inventory, *trustline.Facts, error) {
	if o.sbom != "" {
		r.Image = o.sbom
		f, err := os.Open(o.sbom)
		if err != nil {
			return nil, nil, err
		}
		defer f.Close()
		inv, err := sbom.Decode(f)
		return inv, nil, err
	}
	r.Image = args[0]
	im, err := openToList(args[0])
	if err != nil {
		return nil, nil, fmt.Errorf("cannot scan %q: %w", args[0], err)
	}
	defer im.Close()
	if im.Kind != image.Sandbox && (o.json || len(o.vex) > 0) { // nobody else sees it, and it costs a reading of all
		if r.Digest, err = fileDigest(im.File); err != nil {
			return nil, nil, fmt.Errorf("cannot scan %q: %w", args[0], err)
		}
	}
	inv, err := inventoryOf(ctx, im)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot scan %q: %w", args[0], err)
	}
	trust, err := trustOfImage(ctx, log, im)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot scan %q: %w", args[0], err)
	}
	return inv, &trust, nil
}

// inventoryOf lists the packages of an open image, in a process of its own. Of
// an encrypted one only the bill of materials beside the root can be read.
func inventoryOf(ctx context.Context, im *image.Image) (*sbom.Inventory, error) {
	if im.Format.Encrypted() {
		inv, err := storedBill(im)
		if errors.Is(err, errNoBill) {
			err = action.Fatal(errors.New("its root is encrypted and no bill of materials lies beside it"), "scan it before it is encrypted, or keep one with it (sif add --datatype 9)")
		}
		return inv, err
	}
	return catalogSelf(ctx, im.File)
}

// catalogSelf lists the packages of the image f by this program.
func catalogSelf(ctx context.Context, f *os.File) (*sbom.Inventory, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return catalog.Read(ctx, self, f)
}

var errNoBill = errors.New("it has no bill of materials")

// storedBill reads the bill of materials that a SIF carries.
func storedBill(im *image.Image) (*sbom.Inventory, error) {
	o, ok := billObject(im)
	if !ok {
		return nil, errNoBill
	}
	return sbom.Decode(im.SIF.Reader(o))
}

// billObject finds the first bill of materials of an image, of those in JSON.
func billObject(im *image.Image) (sif.Object, bool) {
	if im.SIF == nil {
		return sif.Object{}, false
	}
	for _, o := range im.SIF.Objects() {
		if b, ok := o.SBOM(); ok && (b.Format == sif.SBOMCycloneDXJSON || b.Format == sif.SBOMSPDXJSON) {
			return o, true
		}
	}
	return sif.Object{}, false
}

func fileDigest(f *os.File) (string, error) {
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, st.Size())); err != nil {
		return "", err
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil)), nil
}

// applyVEX marks the findings that the documents of o declare harmless.
func (o *scanOptions) applyVEX(list []advisory.Finding, digest string) error {
	for _, path := range o.vex {
		v, err := readVEX(path)
		if err != nil {
			return err
		}
		v.Apply(list, strings.TrimPrefix(digest, "sha256:"), time.Now())
	}
	return nil
}

func readVEX(path string) (*advisory.VEX, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	v, err := advisory.ReadVEX(f)
	if err != nil {
		return nil, fmt.Errorf("cannot use %q: %w", path, err)
	}
	return v, nil
}

// write writes r in the form that o asks for.
func (o *scanOptions) write(w io.Writer, log *action.Log, r *scanReport) error {
	switch {
	case o.json:
		return writeTwoSpaces(w, r)
	case o.sarif:
		return writeSARIF(w, r)
	}
	for _, g := range r.Gaps {
		log.Warning(oneLine("the list of packages may not be complete: " + g))
	}
	return writeFindings(w, r)
}

func writeFindings(w io.Writer, r *scanReport) error {
	var b strings.Builder
	if len(r.Findings) > 0 {
		rows := [][]string{{"SEVERITY", "ID", "PACKAGE", "VERSION", "FIXED IN", "WHERE"}}
		for _, f := range r.Findings {
			level := f.Level.String()
			if f.Ignored != "" {
				level += " (ignored)"
			}
			fixed := strings.Join(f.Fixed, ", ")
			if fixed == "" {
				fixed = "-"
			}
			where := ""
			if f.Package.Type != "deb" && f.Package.Type != "rpm" && f.Package.Type != "apk" {
				where = f.Package.Path
			}
			rows = append(rows, []string{level, f.ID, f.Package.Name, f.Package.Version, fixed, where})
		}
		writeTable(&b, rows)
	}
	fmt.Fprintf(&b, "%s: %d packages, %s", oneLine(filepath.Base(r.Image)), r.Packages, countWords(r.Counts))
	if r.Ignored > 0 {
		fmt.Fprintf(&b, ", %d ignored", r.Ignored)
	}
	fmt.Fprintf(&b, "; %d advisories, newest of %s\n", r.Advisories.Records, newest(r.Advisories))
	if r.Trust != "" {
		b.WriteString(r.Trust + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeTable writes rows of hostile text in columns.
func writeTable(w io.Writer, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = oneLine(row[i])
		}
		fmt.Fprintln(t, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	t.Flush()
}

// newest is the date of the newest advisory, as the records say.
func newest(i advisory.Info) string {
	if i.Newest.Year() < 2000 {
		return "unknown date"
	}
	return i.Newest.UTC().Format(time.DateOnly)
}

// countWords tells how many faults of each severity there are.
func countWords(counts map[string]int) string {
	var list []string
	for l := advisory.Critical; l >= advisory.Unknown; l-- {
		if n := counts[l.String()]; n > 0 {
			list = append(list, fmt.Sprintf("%d %s", n, l))
		}
	}
	if list == nil {
		return "no known fault"
	}
	return strings.Join(list, ", ")
}

// sarifLevels are the levels of SARIF for ours.
var sarifLevels = map[advisory.Level]string{
	advisory.Critical: "error", advisory.High: "error", advisory.Medium: "warning", advisory.Low: "note", advisory.Negligible: "note", advisory.Unknown: "warning",
}

// writeSARIF writes r as a log of SARIF 2.1.0.
func writeSARIF(w io.Writer, r *scanReport) error {
	type text struct {
		Text string `json:"text"`
	}
	type rule struct {
		ID         string         `json:"id"`
		Short      text           `json:"shortDescription"`
		Properties map[string]any `json:"properties,omitempty"`
	}
	type location struct {
		Physical struct {
			Artifact struct {
				URI string `json:"uri"`
			} `json:"artifactLocation"`
		} `json:"physicalLocation"`
	}
	type suppression struct {
		Kind          string `json:"kind"`
		Justification string `json:"justification"`
	}
	type result struct {
		RuleID       string        `json:"ruleId"`
		Level        string        `json:"level"`
		Message      text          `json:"message"`
		Locations    []location    `json:"locations"`
		Suppressions []suppression `json:"suppressions,omitempty"`
	}
	rules, results := []rule{}, []result{}
	known := map[string]bool{}
	for _, f := range r.Findings {
		if !known[f.ID] {
			known[f.ID] = true
			summary := f.Summary
			if summary == "" {
				summary = f.ID
			}
			rules = append(rules, rule{f.ID, text{summary}, map[string]any{"tags": []string{"security", f.Level.String()}}})
		}
		say := fmt.Sprintf("%s %s has %s", f.Package.Name, f.Package.Version, f.ID)
		if len(f.Fixed) > 0 {
			say += ", corrected in " + strings.Join(f.Fixed, ", ")
		}
		x := result{RuleID: f.ID, Level: sarifLevels[f.Level], Message: text{say}, Locations: make([]location, 1)}
		x.Locations[0].Physical.Artifact.URI = (&url.URL{Path: f.Package.Path}).String()
		if f.Ignored != "" {
			x.Suppressions = []suppression{{"external", f.Ignored}}
		}
		results = append(results, x)
	}
	doc := map[string]any{
		"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
		"runs": []any{map[string]any{
			"tool":    map[string]any{"driver": map[string]any{"name": "singularity", "version": conf.Version, "rules": rules}},
			"results": results,
		}},
	}
	return writeTwoSpaces(w, doc)
}

// newSBOMCommand shows the packages of an image.
func newSBOMCommand(*action.Log) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "sbom [options] <image>",
		Short: "List the packages in an image, as a bill of materials",
		Long:  "Read what the package managers recorded in an image (dpkg, apk, rpm, Go, Python, npm, cargo) and write it as CycloneDX 1.6 or SPDX 2.3.",
		Example: "  $ singularity sbom debian.sif > debian.cdx.json\n" +
			"  $ singularity sbom --format spdx debian.sif",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f, ok := billFormats[format]
			if !ok && format != "table" {
				return usageError(c, fmt.Errorf("--format %q is not known: cyclonedx, spdx, table", format))
			}
			im, err := openToList(args[0])
			if err != nil {
				return fmt.Errorf("cannot list the packages of %q: %w", args[0], err)
			}
			defer im.Close()
			inv, err := inventoryOf(c.Context(), im)
			if err != nil {
				return fmt.Errorf("cannot list the packages of %q: %w", args[0], err)
			}
			if format == "table" {
				return writePackages(c.OutOrStdout(), inv)
			}
			return sbom.Encode(c.OutOrStdout(), inv, billSubject(im, args[0]), f)
		},
	}
	c.Flags().StringVar(&format, "format", "cyclonedx", "`form`: cyclonedx, spdx, table")
	return c
}

var billFormats = map[string]sif.SBOMFormat{"cyclonedx": sif.SBOMCycloneDXJSON, "spdx": sif.SBOMSPDXJSON}

// billSubject names the image in its bill of materials. The date is that of the
// image, so that equal images have equal bills.
func billSubject(im *image.Image, path string) sbom.Subject {
	s := sbom.Subject{Name: filepath.Base(path), Tool: conf.Version}
	if im.SIF != nil {
		s.Created = time.Unix(im.SIF.Header().Created, 0)
	} else if st, err := im.File.Stat(); err == nil {
		s.Created = st.ModTime()
	}
	return s
}

func writePackages(w io.Writer, inv *sbom.Inventory) error {
	rows := [][]string{{"TYPE", "PACKAGE", "VERSION", "SOURCE", "WHERE"}}
	for _, p := range inv.Packages {
		rows = append(rows, []string{p.Type, p.Name, p.Version, p.Source, p.Path})
	}
	var b strings.Builder
	writeTable(&b, rows)
	_, err := io.WriteString(w, b.String())
	return err
}
