package server

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"singularity/server/auth"
	"singularity/server/registry"
	"singularity/server/store/embedded"
)

func newAdmin() *cobra.Command {
	admin := &cobra.Command{Use: "admin", Short: "Look after the data directory, also while the server runs"}
	admin.AddCommand(newBackup(), newRestore(), newCheck(), newGC(), newLink(), newCertificate())
	return admin
}

// verb makes a command that loads the configuration and ends at a signal.
func verb(use, short, long string, args int, run func(context.Context, *cobra.Command, Config, []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.ExactArgs(args), RunE: func(cmd *cobra.Command, words []string) error {
		c, err := LoadConfig(cmd.Flags())
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		return run(ctx, cmd, c, words)
	}}
}

// attach opens a data directory that is there.
func attach(dir string) (*embedded.Store, error) {
	if _, err := os.Stat(filepath.Join(dir, "records.db")); err != nil {
		return nil, fmt.Errorf("cannot open %q: it is no data directory", dir)
	}
	return embedded.Attach(dir)
}

func newBackup() *cobra.Command {
	return verb("backup DIR", "Copy everything to a directory, while the server runs",
		"backup makes DIR a data directory as this one is at one moment. If DIR holds an older backup, only what is new is copied. "+
			"The copy holds the key of the own authority and the hashes of passwords: keep it as closed as the original.", 1,
		func(ctx context.Context, cmd *cobra.Command, c Config, words []string) error {
			s, err := attach(c.Data)
			if err != nil {
				return err
			}
			defer s.Close()
			blobs, size, err := s.Copy(ctx, words[0])
			if err != nil {
				return fmt.Errorf("cannot back up to %q: %w", words[0], err)
			}
			if err := copyKeys(c.Data, words[0]); err != nil {
				return fmt.Errorf("cannot back up to %q: %w", words[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "backed up the records and %d new blobs, %d bytes\n", blobs, size)
			return nil
		})
}

// copyKeys copies the authority and the account at an ACME authority.
func copyKeys(from, to string) error {
	for _, dir := range []string{"tls", "acme"} {
		entries, err := os.ReadDir(filepath.Join(from, dir))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(to, dir), 0o700); err != nil {
			return err
		}
		for _, e := range entries {
			text, err := os.ReadFile(filepath.Join(from, dir, e.Name()))
			if err != nil {
				return err
			}
			if err := writeFile(filepath.Join(to, dir, e.Name()), text); err != nil {
				return err
			}
		}
	}
	return nil
}

func newRestore() *cobra.Command {
	return verb("restore BACKUP", "Make a new data directory from a backup",
		"restore reads and checks every byte of BACKUP and copies it to the data directory, which must not exist or be empty.", 1,
		func(ctx context.Context, cmd *cobra.Command, c Config, words []string) error {
			if entries, err := os.ReadDir(c.Data); err == nil && len(entries) > 0 {
				return fmt.Errorf("cannot restore to %q: it is not empty", c.Data)
			}
			s, err := attach(words[0])
			if err != nil {
				return err
			}
			defer s.Close()
			report, err := s.Check(ctx, true)
			if err != nil {
				return err
			}
			if len(report.Faults) > 0 {
				return say(cmd.OutOrStdout(), report, words[0])
			}
			blobs, size, err := s.Copy(ctx, c.Data)
			if err == nil {
				err = copyKeys(words[0], c.Data)
			}
			if err != nil {
				return fmt.Errorf("cannot restore to %q: %w", c.Data, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "restored %d records and %d blobs, %d bytes\n", report.Records, blobs, size)
			return nil
		})
}

func say(w io.Writer, r embedded.Report, dir string) error {
	for _, f := range r.Faults {
		fmt.Fprintln(w, f)
	}
	fmt.Fprintf(w, "%d records, %d blobs, %d bytes read: %d faults\n", r.Records, r.Blobs, r.Bytes, len(r.Faults))
	if len(r.Faults) > 0 {
		return fmt.Errorf("%q is damaged", dir)
	}
	return nil
}

func newCheck() *cobra.Command {
	cmd := verb("check", "Look for damage in the data directory", "check looks at records and indexes, and with --read-data at every byte of every blob. It changes nothing; its status is 1 if something is damaged.", 0,
		func(ctx context.Context, cmd *cobra.Command, c Config, _ []string) error {
			s, err := attach(c.Data)
			if err != nil {
				return err
			}
			defer s.Close()
			readData, err := cmd.Flags().GetBool("read-data")
			if err != nil {
				return err
			}
			report, err := s.Check(ctx, readData)
			if err != nil {
				return err
			}
			return say(cmd.OutOrStdout(), report, c.Data)
		})
	cmd.Flags().Bool("read-data", false, "read all blobs and compare them with their names")
	return cmd
}

func newGC() *cobra.Command {
	cmd := verb("gc", "Free what nobody needs any more", "gc gives up uploads that began more than 24 hours ago, and removes records that have expired, images that can be restored no more, and contents that no image has.", 0,
		func(ctx context.Context, cmd *cobra.Command, c Config, _ []string) error {
			s, err := attach(c.Data)
			if err != nil {
				return err
			}
			defer s.Close()
			dry, err := cmd.Flags().GetBool("dry-run")
			if err != nil {
				return err
			}
			lib, err := openLibrary(ctx, c, s, nil, nil, nil)
			if err != nil {
				return err
			}
			// What the registry holds is not freed.
			oci, err := registry.Open(ctx, s.Records, s.Blobs, nil, lib, c.URL)
			if err != nil {
				return err
			}
			got, err := collect(ctx, s, lib, oci, dry)
			if err != nil {
				return err
			}
			word := "freed"
			if dry {
				word = "would free"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %d old uploads, %d bytes\n", word, got.Uploads, got.UploadBytes)
			fmt.Fprintf(cmd.OutOrStdout(), "%s %d contents, %d bytes\n", word, got.Contents, got.Bytes)
			return nil
		})
	cmd.Flags().Bool("dry-run", false, "only say what would be freed")
	return cmd
}

func newLink() *cobra.Command {
	return verb("link USER", "Make a one-time link to set a user's password", "link prints the address of a page on which USER, or an administrator who lost the password, sets a new one. It works once, for 24 hours.", 1,
		func(ctx context.Context, cmd *cobra.Command, c Config, words []string) error {
			s, err := attach(c.Data)
			if err != nil {
				return err
			}
			defer s.Close()
			audit, err := openAudit(c)
			if err != nil {
				return err
			}
			defer audit.Close()
			accounts, err := openAuth(ctx, c, s.Records, slog.New(slog.NewJSONHandler(audit, nil)))
			if err != nil {
				return err
			}
			a, err := accounts.Account(ctx, words[0])
			if err != nil || a.Kind != auth.User || !a.Active() {
				return fmt.Errorf("cannot make a link for %q: there is no such user", words[0])
			}
			link, err := accounts.AddLink(ctx, a.ID, 24*time.Hour)
			accounts.Audit(ctx, "account.link", a.Name, err, map[string]string{"way": "command"})
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), link)
			return nil
		})
}

var certificateName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func newCertificate() *cobra.Command {
	return verb("certificate NAME", "Make a certificate for another service of the site", "certificate writes NAME.pem and NAME.key to the present directory: with them a service may ask the internal listener whose a token is. They work for 90 days.", 1,
		func(ctx context.Context, cmd *cobra.Command, c Config, words []string) error {
			name := words[0]
			if !certificateName.MatchString(name) {
				return fmt.Errorf("cannot make a certificate for %q: a name has lower-case letters, digits, dots and dashes", name)
			}
			// An authority is not made where there is no server.
			if _, err := os.Stat(filepath.Join(c.Data, "tls", "ca.pem")); err != nil {
				return fmt.Errorf("cannot open %q: it is no data directory", c.Data)
			}
			a, err := openAuthority(c.Data)
			if err != nil {
				return err
			}
			cert, err := a.issue(name, []string{name}, x509.ExtKeyUsageClientAuth, leafLife)
			if err != nil {
				return err
			}
			der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
			if err != nil {
				return err
			}
			if err := writeFile(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
				return err
			}
			return writeFile(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
		})
}
