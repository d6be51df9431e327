package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"singularity/conf"
)

func newBuildcfgCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "buildcfg [name]",
		Short:  "Print what the build fixed",
		Long:   "Print the names and directories that the build fixed, as NAME=value lines, or the value of one name.",
		Args:   cobra.MaximumNArgs(1),
		Hidden: true,
		RunE: func(c *cobra.Command, args []string) error {
			return writeBuildcfg(c.OutOrStdout(), args)
		},
	}
}

func writeBuildcfg(w io.Writer, args []string) error {
	for _, line := range buildcfg() {
		name, value, _ := strings.Cut(line, "=")
		switch {
		case len(args) == 0:
			fmt.Fprintln(w, line)
		case name == args[0]:
			fmt.Fprintln(w, value)
			return nil
		}
	}
	if len(args) > 0 {
		return exitOne(fmt.Errorf("no variable named %q", args[0]))
	}
	return nil
}

// buildcfg returns NAME=value lines. Test programs of others read them, so the
// names stay.
func buildcfg() []string {
	p := conf.Prefix
	return []string{
		"PACKAGE_NAME=" + conf.PackageName,
		"PACKAGE_VERSION=" + conf.Version,
		"BUILDDIR=",
		"PREFIX=" + p,
		"EXECPREFIX=" + p,
		"BINDIR=" + p + "/bin",
		"SBINDIR=" + p + "/sbin",
		"LIBEXECDIR=" + p + "/libexec",
		"DATAROOTDIR=" + p + "/share",
		"DATADIR=" + p + "/share",
		"SYSCONFDIR=" + conf.Sysconfdir(),
		"SHAREDSTATEDIR=" + p + "/com",
		"LOCALSTATEDIR=" + conf.Localstatedir(),
		"RUNSTATEDIR=" + p + "/var/run",
		"INCLUDEDIR=" + p + "/include",
		"DOCDIR=" + p + "/share/doc/singularity",
		"INFODIR=" + p + "/share/info",
		"LIBDIR=" + p + "/lib",
		"LOCALEDIR=" + p + "/share/locale",
		"MANDIR=" + p + "/share/man",
		"SINGULARITY_CONFDIR=" + conf.Dir(),
		"SESSIONDIR=" + conf.SessionDir(),
		"PLUGIN_ROOTDIR=" + p + "/libexec/singularity/plugin",
		"SINGULARITY_CONF_FILE=" + conf.Path(),
		"SINGULARITY_SUID_INSTALL=" + suidInstall(p),
	}
}

// suidInstall tells whether the setuid helper is installed: 1 or 0.
func suidInstall(prefix string) string {
	fi, err := os.Stat(prefix + "/libexec/singularity/bin/starter-suid")
	if err != nil || fi.Mode()&os.ModeSetuid == 0 {
		return "0"
	}
	return "1"
}
