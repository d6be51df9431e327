// Command sbom writes bills of materials of our own programs: the modules that
// each was linked with, as the compiler noted them, in CycloneDX and SPDX.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"singularity/image"
	"singularity/sbom"
	"singularity/sif"
)

func main() {
	name := flag.String("name", "", "of the release")
	version := flag.String("version", "", "of the release")
	seconds := flag.Int64("time", 0, "of the commit, since 1970")
	out := flag.String("out", "", "beginning of the names of both files")
	flag.Parse()
	if err := write(flag.Arg(0), *out, sbom.Subject{Name: *name, Version: *version, Tool: *version, Created: time.Unix(*seconds, 0)}); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func write(dir, out string, s sbom.Subject) error {
	im, err := image.Open(dir)
	if err != nil {
		return err
	}
	defer im.Close()
	files, _, err := im.Files()
	if err != nil {
		return err
	}
	inv, err := sbom.Read(context.Background(), files)
	if err != nil {
		return err
	}
	if len(inv.Packages) == 0 || len(inv.Gaps) > 0 {
		return fmt.Errorf("%d modules and these gaps: %q", len(inv.Packages), inv.Gaps)
	}
	for end, format := range map[string]sif.SBOMFormat{".cdx.json": sif.SBOMCycloneDXJSON, ".spdx.json": sif.SBOMSPDXJSON} {
		f, err := os.Create(out + end)
		if err != nil {
			return err
		}
		if err := sbom.Encode(f, inv, s, format); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
