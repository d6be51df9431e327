package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/build"
)

func newDataCommand(log *action.Log) *cobra.Command {
	c := &cobra.Command{
		Use:     "data",
		Short:   "Make data containers",
		Long:    "Make data containers: images that hold data, without a system to run.",
		Example: "  $ singularity data package genome/ genome.oci.sif",
	}
	c.AddCommand(newDataPackageCommand(log))
	return c
}

func newDataPackageCommand(log *action.Log) *cobra.Command {
	return &cobra.Command{
		Use:   "package <directory> <image>",
		Short: "Pack a directory into a data container",
		Long: "Pack the content of a directory into a data container: an OCI-SIF image with one compressed, read-only layer. An existing file is never overwritten. " +
			"Files belong to root in an ordinary user's image.",
		Example: "  $ singularity data package genome/ genome.oci.sif",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return dataPackage(log, args[0], args[1])
		},
	}
}

func dataPackage(log *action.Log, src, out string) error {
	date, fixed, err := sourceDate()
	if err != nil {
		return exitOne(err)
	}
	umask := unix.Umask(0)
	unix.Umask(umask)
	o := build.DataOptions{AllRoot: os.Geteuid() != 0, Umask: umask}
	if fixed {
		t := date.Unix()
		o.Time = &t
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err = build.PackageData(ctx, src, out, o)
	switch {
	case errors.Is(err, fs.ErrExist):
		return action.Fatal(fmt.Errorf("Image file already exists: %q - will not overwrite", out), "choose another name, or remove the file")
	case errors.Is(err, syscall.ENOTDIR):
		return action.Fatal(fmt.Errorf("cannot package %q: it is not a directory", src), "put the file into a directory, and name that")
	case err != nil:
		return fmt.Errorf("cannot package %q: %w", src, err)
	}
	log.Info("Created " + out)
	return nil
}
