package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/advisory"
	"singularity/client/transfer"
	"singularity/conf"
)

func newAdvisoriesCommand(log *action.Log) *cobra.Command {
	c := &cobra.Command{
		Use:   "advisories",
		Short: "Look after the advisories that scan uses",
		Long: "Advisories are records in OSV form in a directory. How fresh they are is up to whoever brings them there: " +
			"update takes them from a mirror or a file, import makes them of what distributions publish.",
		Example: "  $ singularity advisories update https://mirror.example.org/osv/Debian/all.zip\n" +
			"  $ singularity advisories info",
	}
	c.AddCommand(newAdvisoriesInfoCommand(), newAdvisoriesUpdateCommand(log), newAdvisoriesImportCommand(), newAdvisoriesIgnoreCommand())
	return c
}

// advisoryDirs are the directories that are used unless others are named: the
// user's own and that of the site.
func advisoryDirs() []string {
	var list []string
	if home, err := os.UserHomeDir(); err == nil {
		list = append(list, filepath.Join(home, ".singularity", "advisories"))
	}
	return append(list, filepath.Join(conf.Localstatedir(), "singularity", "advisories"))
}

// advisoryPaths are those of given, else the usual ones that are there.
func advisoryPaths(given []string) ([]string, error) {
	if len(given) > 0 {
		return given, nil
	}
	if v := os.Getenv("SINGULARITY_ADVISORIES"); v != "" {
		return filepath.SplitList(v), nil
	}
	var list []string
	for _, d := range advisoryDirs() {
		if _, err := os.Stat(d); err == nil {
			list = append(list, d)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if list == nil {
		return nil, action.Fatal(fmt.Errorf("there are no advisories in %s", strings.Join(advisoryDirs(), " or ")), "bring some with 'singularity advisories update', or name a directory or archive with --advisories")
	}
	return list, nil
}

func newAdvisoriesInfoCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "info [options] [path...]",
		Short:   "Tell how many advisories there are and how old they are",
		Example: "  $ singularity advisories info",
		RunE: func(c *cobra.Command, args []string) error {
			paths, err := advisoryPaths(args)
			if err != nil {
				return err
			}
			db, err := advisory.Load(c.Context(), paths...)
			if err != nil {
				return err
			}
			info := db.Info()
			if asJSON {
				return writeTwoSpaces(c.OutOrStdout(), info)
			}
			return writeAdvisoryInfo(c.OutOrStdout(), info, paths)
		},
	}
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return c
}

func writeAdvisoryInfo(w io.Writer, info advisory.Info, paths []string) error {
	var b strings.Builder
	rows := [][]string{
		{"From", strings.Join(paths, ", ")}, {"Records", fmt.Sprint(info.Records)}, {"Withdrawn", fmt.Sprint(info.Withdrawn)},
		{"Newest", newest(info)}, {"Digest", info.Digest}, {"Unusable", fmt.Sprint(info.Skipped)},
	}
	for _, u := range info.Unusable {
		rows = append(rows, []string{"", u})
	}
	ecosystems := make([]string, 0, len(info.Ecosystems))
	for e := range info.Ecosystems {
		ecosystems = append(ecosystems, e)
	}
	slices.Sort(ecosystems)
	for _, e := range ecosystems {
		rows = append(rows, []string{e, fmt.Sprintf("%d packages", info.Ecosystems[e])})
	}
	writeTable(&b, rows)
	_, err := io.WriteString(w, b.String())
	return err
}

// updateOptions are the flags of advisories update.
type updateOptions struct {
	dir, name, sha256 string
	older             bool
}

func newAdvisoriesUpdateCommand(log *action.Log) *cobra.Command {
	var o updateOptions
	c := &cobra.Command{
		Use:   "update [options] <address or archive>",
		Short: "Take advisories from a mirror or an archive",
		Long: "Fetch a zip or tar archive of OSV records over https, or take one from a file, and put it in the place of the one of that name. " +
			"Data that is older than what is there, or lacks a tenth of its records, is refused: a mirror that goes back in time would hide faults. What was there stays until the new data has been read whole.",
		Example: "  $ singularity advisories update https://mirror.example.org/osv/Debian/all.zip\n" +
			"  $ singularity advisories update --name go go.tar.gz",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return updateAdvisories(c, log, &o, args[0])
		},
	}
	f := c.Flags()
	f.StringVar(&o.dir, "dir", advisoryDirs()[0], "`directory` of advisories")
	f.StringVar(&o.name, "name", "", "`name` of this set, if there are several (default: by the address)")
	f.StringVar(&o.sha256, "sha256", "", "refuse an archive that has not this `digest`, 64 hexadecimal digits")
	f.BoolVar(&o.older, "allow-older", false, "take data that is older or smaller than what is there")
	return c
}

func updateAdvisories(c *cobra.Command, log *action.Log, o *updateOptions, from string) error {
	name, err := o.target(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(o.dir, ".new-*-"+name)
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := bringArchive(c.Context(), from, tmp); err != nil {
		return fmt.Errorf("cannot take advisories from %q: %w", from, err)
	}
	if err := o.checkDigest(tmp); err != nil {
		return fmt.Errorf("cannot take advisories from %q: %w", from, err)
	}
	next, err := advisory.Load(c.Context(), tmp.Name())
	if err != nil {
		return err
	}
	final := filepath.Join(o.dir, name)
	if err := o.compare(c.Context(), final, next); err != nil {
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), final); err != nil {
		return err
	}
	info := next.Info()
	log.Info(fmt.Sprintf("%d advisories, newest of %s, are in %s", info.Records, newest(info), final))
	return nil
}

// checkDigest compares what came with what the user expects, before anything in it is
// read.
func (o *updateOptions) checkDigest(f *os.File) error {
	if o.sha256 == "" {
		return nil
	}
	got, err := fileDigest(f)
	if want := "sha256:" + strings.ToLower(strings.TrimPrefix(o.sha256, "sha256:")); err == nil && got != want {
		err = fmt.Errorf("its digest is %s, not %s; what was there stays", got, want)
	}
	return err
}

// target is the file name of the set that from is.
func (o *updateOptions) target(from string) (string, error) {
	for _, ext := range []string{".zip", ".tar.gz", ".tgz", ".tar.zst", ".tar", ".json"} {
		if !strings.HasSuffix(strings.ToLower(from), ext) {
			continue
		}
		name := o.name
		if name == "" {
			name = strings.Map(func(c rune) rune {
				if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' {
					return c
				}
				return '_'
			}, strings.TrimPrefix(from[:len(from)-len(ext)], "https://"))
			name = strings.TrimLeft(name, "._")
		}
		if name == "" || strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, ".") {
			return "", fmt.Errorf("%q cannot be the name of a set", o.name)
		}
		return name + ext, nil
	}
	return "", action.Fatal(fmt.Errorf("%q is no archive of advisories", from), "known are .zip, .tar, .tar.gz, .tgz, .tar.zst and .json")
}

// compare refuses data that is behind what is at path.
func (o *updateOptions) compare(ctx context.Context, path string, next *advisory.DB) error {
	if _, err := os.Stat(path); o.older || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	have, err := advisory.Load(ctx, path)
	if err != nil {
		return nil // what cannot be used is worth nothing
	}
	return cmp.Or(next.Info().Follows(have.Info()), next.Keeps(have))
}

// bringArchive writes the archive called from, an address or a file, to the file
// to.
func bringArchive(ctx context.Context, from string, to *os.File) error {
	if strings.Contains(from, "://") {
		t, err := transfer.NewTransport(&transfer.Settings{UserAgent: conf.PackageName + "/" + conf.Version})
		if err != nil {
			return err
		}
		d := transfer.Download{Client: transfer.NewClient(t), URL: from, Size: -1}
		_, err = d.To(ctx, to)
		return err
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(to, f)
	return err
}

func newAdvisoriesImportCommand() *cobra.Command {
	var out, ecosystem string
	c := &cobra.Command{
		Use:   "import [options] <file or directory>",
		Short: "Make OSV records of what a distribution publishes",
		Long: "Read the JSON of Debian's security tracker, a main.json of Alpine's security database, or a directory of Debian changelogs (PACKAGE/changelog.Debian.gz, as in /usr/share/doc), and write records in OSV form as one JSON file. " +
			"A changelog says what its maintainers wrote down, not what a security team decided.",
		Example: "  $ singularity advisories import --output debian.json tracker.json\n" +
			"  $ singularity advisories import -o changelogs.json /usr/share/doc",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			list, err := importAdvisories(c.Context(), args[0], ecosystem)
			if err != nil {
				return fmt.Errorf("cannot import %q: %w", args[0], err)
			}
			return writeRecords(out, list)
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "write the records to this `file`")
	c.Flags().StringVar(&ecosystem, "ecosystem", "Debian:12", "`name` and release of the distribution that changelogs are of")
	c.MarkFlagRequired("output")
	return c
}

func importAdvisories(ctx context.Context, path, ecosystem string) ([]advisory.Record, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		root, err := os.OpenRoot(path)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		return advisory.Changelogs(ctx, root.FS(), ecosystem)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return advisory.Import(f, st.ModTime().UTC())
}

// writeRecords writes list to the file called path, whole or not at all.
func writeRecords(path string, list []advisory.Record) error {
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return writeFileWhole(path, append(b, '\n'), 0o644)
}

// ignoreOptions are the flags of advisories ignore.
type ignoreOptions struct {
	file, product, reason, until, author string
}

func newAdvisoriesIgnoreCommand() *cobra.Command {
	var o ignoreOptions
	c := &cobra.Command{
		Use:   "ignore [options] <id>",
		Short: "Note that a fault does not count here, and why",
		Long: "Add a statement to an OpenVEX file, which scan --vex obeys: the fault called id (a CVE or any other name) is of no consequence, in one package or in all, until a day. " +
			"Other programs that read OpenVEX see it as not_affected with your reason.",
		Example: "  $ singularity advisories ignore --vex site.vex.json \\\n      --reason 'no network' --until 2027-03-01 CVE-2024-1234",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return ignoreFault(&o, args[0], time.Now())
		},
	}
	f := c.Flags()
	f.StringVar(&o.file, "vex", "", "OpenVEX `file`, made if it is not there")
	f.StringVar(&o.product, "product", "", "`purl` of the package, with or without a version (default: any)")
	f.StringVar(&o.reason, "reason", "", "`text` that says why")
	f.StringVar(&o.until, "until", "", "last `day` on which it holds, as 2027-03-01 (default: for ever)")
	f.StringVar(&o.author, "author", "", "who says so, as `text` (default: your user name)")
	c.MarkFlagRequired("vex")
	c.MarkFlagRequired("reason")
	return c
}

func ignoreFault(o *ignoreOptions, id string, now time.Time) error {
	var until time.Time
	if o.until != "" {
		t, err := time.Parse(time.DateOnly, o.until)
		if err != nil {
			return fmt.Errorf("--until %q is no day: write it as 2027-03-01", o.until)
		}
		if t.Before(now.AddDate(0, 0, -1)) {
			return fmt.Errorf("--until %q has passed", o.until)
		}
		until = t
	}
	v, err := readVEX(o.file)
	if errors.Is(err, fs.ErrNotExist) {
		author := o.author
		if author == "" {
			author = os.Getenv("USER")
		}
		v, err = advisory.NewVEX("urn:singularity:vex:"+filepath.Base(o.file), author, now, nil), nil
	}
	if err != nil {
		return err
	}
	s := advisory.Ignore(id, o.product, o.reason, until)
	s.Timestamp = now.UTC()
	v.Statements = append(v.Statements, s)
	v.Version++
	v.Timestamp = now.UTC()
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFileWhole(o.file, append(b, '\n'), 0o644)
}
